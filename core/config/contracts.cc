// Contracts: what every instance provides, and whether it is what the others
// ask for.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/config/entries.h"
#include "core/config/names.h"
#include "core/forward/views.h"

namespace semvq {
namespace {

// A view asked for, with the config path that names the instance.
struct Need {
  std::string path;
  NeededView view;
  bool image_encoder = false;  // Only an image encoder will do.
};

struct Instance {
  std::string path;    // Where it is declared, for messages.
  std::string type;    // "semvq.VqEmaConfig"; empty for `visual`.
  bool known = false;  // Its contract is in the book.
  bool exact = false;  // ... and was made from a config read without errors.
  bool image_encoder = false;
  std::vector<Need> needs;
};

class ContractChecker {
 public:
  ContractChecker(const Experiment& stage, const PluginEntries& entries,
                  const Provenance& provenance, ContractBook* book,
                  std::vector<ConfigError>* errors)
      : x_(stage),
        entries_(entries),
        provenance_(provenance),
        book_(book),
        errors_(errors) {}

  void Check() {
    ImageSize();
    book_->max_tokens = x_.text().max_tokens();
    for (const PluginEntry& e : entries_.encoders) {
      if (!e.Is(PluginKind::kFusionEncoder)) AddPlugin(e);
    }
    for (int i = 0; i < x_.quantizers_size(); ++i) {
      AddQuantizer(x_.quantizers(i), entries_.quantizers[i]);
    }
    AddVisual();
    for (const PluginEntry& e : entries_.encoders) {
      if (e.Is(PluginKind::kFusionEncoder)) AddPlugin(e);
    }
    for (const PluginEntry& e : entries_.objectives) AddPlugin(e);
    for (const PluginEntry& e : entries_.tasks) AddPlugin(e);

    for (const auto& [name, instance] : instances_) {
      for (const Need& need : instance.needs) Match(instance, need);
    }
    Teachers();
    Tokenizer();
    for (const PluginEntry& e : entries_.objectives) {
      BatchKeys(e, x_.trainer().stream(), "trainer.stream");
    }
    for (int i = 0; i < x_.tasks_size(); ++i) {
      const TaskConfig& task = x_.tasks(i);
      const PluginEntry& e = entries_.tasks[i];
      if (task.evaluate()) BatchKeys(e, task.stream(), e.path + ".stream");
      if (task.fine_tune()) {
        BatchKeys(e, x_.trainer().stream(), "trainer.stream");
      }
    }
  }

 private:
  void Fail(const std::string& path, std::string message) {
    if (provenance_.IsBroken(path)) return;
    errors_->push_back(ErrorAt(provenance_, path, std::move(message)));
  }
  std::string Where(const std::string& path) const {
    const SourceLocation location = provenance_.Locate(path);
    return location.file.empty() ? path
                                 : absl::StrCat(path, ", ", ToString(location));
  }

  const DataStream* Stream(const std::string& name) const {
    for (const DataStream& stream : x_.data().streams()) {
      if (stream.name() == name) return &stream;
    }
    return nullptr;
  }

  // Encoders are built for one image size: of the trained stream, else of the
  // first task's; all that is evaluated in this stage must have it too.
  void ImageSize() {
    std::string decided_by;
    const auto use = [&](const std::string& name) {
      const DataStream* stream = Stream(name);
      if (stream == nullptr) return;
      const std::string path = absl::StrCat(
          EntryPath("data.streams", stream->name()), ".transform.size");
      const int64_t size = stream->transform().size();
      if (decided_by.empty()) {
        decided_by = path;
        book_->image_size = size;
      } else if (size != book_->image_size &&
                 !provenance_.TouchesBroken(path) &&
                 !provenance_.TouchesBroken(decided_by)) {
        Fail(path, absl::StrCat("got ", size, ", expected ", book_->image_size,
                                " as in ", Where(decided_by),
                                "; one stage has one image size"));
      }
    };
    use(x_.trainer().stream());
    for (const TaskConfig& task : x_.tasks()) {
      if (task.evaluate()) use(task.stream());
    }
    if (decided_by.empty()) {
      book_->image_size = ImageTransform::default_instance().size();
    }
  }

  Instance& Declare(const PluginEntry& entry) {
    Instance& instance = instances_[entry.name];
    instance.path = entry.path;
    instance.known = entry.type != nullptr && entry.valid;
    instance.exact = instance.known && entry.exact;
    instance.image_encoder = entry.Is(PluginKind::kImageEncoder);
    if (entry.type != nullptr) instance.type = entry.type->name();
    return instance;
  }

  void AddPlugin(const PluginEntry& entry) {
    // Of two instances with one name, which is an error, the first counts.
    if (instances_.count(entry.name) > 0) return;
    Instance& instance = Declare(entry);
    if (!instance.known) return;
    Contract contract = entry.type->contract(entry.name, *entry.config, *book_);
    for (const EncoderConfig& encoder : x_.encoders()) {
      if (encoder.name() == entry.name) contract.fixed = encoder.frozen();
    }
    AddNeeds(entry, contract, &instance);
    book_->Add(entry.name, std::move(contract));
  }

  static void AddNeeds(const PluginEntry& entry, const Contract& contract,
                       Instance* instance) {
    for (const NeededView& view : contract.needs) {
      instance->needs.push_back(
          {FieldPath(entry.config_path, view.field), view});
    }
  }

  void AddQuantizer(const QuantizerConfig& config, const PluginEntry& entry) {
    if (instances_.count(entry.name) > 0) return;
    Instance& instance = Declare(entry);
    NeededView input;
    input.field = "input";
    input.instance = config.input();
    input.view = kTokens;
    instance.needs.push_back({entry.path + ".input", input, true});
    if (!instance.known) return;
    const auto encoder = instances_.find(config.input());
    const bool encoder_exact =
        encoder != instances_.end() && encoder->second.exact;
    ProvidedView quantized;
    quantized.view = kQuantized;
    quantized.dim =
        config.dim() > 0 ? config.dim() : book_->Dim(config.input(), kTokens);
    instance.exact = instance.exact && (config.dim() > 0 || encoder_exact) &&
                     !provenance_.IsBroken(entry.path + ".dim");
    Contract host;
    host.provides = {quantized};
    book_->Add(entry.name, std::move(host));
    Contract contract = entry.type->contract(entry.name, *entry.config, *book_);
    const ProvidedView* own = contract.Find(kQuantized);
    if (own == nullptr) {
      contract.provides.push_back(quantized);
    } else if (own->dim > 0 && own->dim != quantized.dim && instance.exact) {
      Fail(entry.path + ".dim",
           absl::StrCat("got codes of dimension ", quantized.dim,
                        config.dim() > 0 ? ""
                                         : absl::StrCat(" (that of encoder \"",
                                                        config.input(), "\")"),
                        ", but this ", instance.type, " has ", own->dim,
                        "; set dim: ", own->dim));
    }
    AddNeeds(entry, contract, &instance);
    book_->Add(entry.name, std::move(contract));
  }

  // The default switch needs the encoder `image`; an experiment without one,
  // text only, has no visual tokens.
  void AddVisual() {
    const VisualTokens& config = x_.visual_tokens();
    if (!x_.has_visual_tokens() && instances_.count(config.encoder()) == 0) {
      return;
    }
    Instance& instance = instances_[kVisual];
    instance.path = "visual_tokens";
    NeededView encoder;
    encoder.field = "encoder";
    encoder.instance = config.encoder();
    encoder.view = kTokens;
    instance.needs.push_back({"visual_tokens.encoder", encoder, true});
    if (config.mode() != VisualTokens::CONTINUOUS) {
      NeededView codes;
      codes.field = "quantizer";
      codes.instance = config.quantizer();
      codes.view = kQuantized;
      codes.why =
          absl::StrCat("the mode is ", VisualTokens::Mode_Name(config.mode()));
      instance.needs.push_back({"visual_tokens.quantizer", codes});
      for (const QuantizerConfig& quantizer : x_.quantizers()) {
        if (quantizer.name() == config.quantizer() &&
            quantizer.input() != config.encoder()) {
          Fail("visual_tokens.quantizer",
               absl::StrCat("quantizer \"", quantizer.name(),
                            "\" quantises the tokens of \"", quantizer.input(),
                            "\" (",
                            Where(EntryPath("quantizers", quantizer.name())),
                            "), expected those of \"", config.encoder(),
                            "\", visual_tokens.encoder"));
        }
      }
    }
    const auto source = instances_.find(config.encoder());
    instance.known = source != instances_.end() && source->second.known;
    instance.exact = instance.known && source->second.exact;
    if (!instance.known) return;
    Contract contract;
    contract.provides = {{kTokens, book_->Dim(config.encoder(), kTokens)}};
    book_->Add(kVisual, std::move(contract));
  }

  std::vector<std::string> InstanceNames() const {
    std::vector<std::string> names;
    for (const auto& [name, instance] : instances_) names.push_back(name);
    return names;
  }

  void Match(const Instance& asker, const Need& need) {
    const NeededView& view = need.view;
    const std::string binding = absl::StrCat("binding `", view.field, "`");
    const std::string because =
        view.why.empty() ? "" : absl::StrCat(" because ", view.why);
    if (view.instance.empty()) {
      return Fail(need.path, absl::StrCat(binding,
                                          " is empty, expected the "
                                          "name of an instance that provides "
                                          "the view \"",
                                          view.view, "\"", because,
                                          DidYouMean("", InstanceNames())));
    }
    const auto found = instances_.find(view.instance);
    if (found == instances_.end()) {
      return Fail(
          need.path,
          absl::StrCat(binding, " names instance \"", view.instance,
                       "\", which does not exist",
                       view.instance == kVisual
                           ? "; visual_tokens.encoder must name an "
                             "image encoder"
                           : DidYouMean(view.instance, InstanceNames())));
    }
    const Instance& provider = found->second;
    const Contract* contract = book_->Find(view.instance);
    if (!provider.known || contract == nullptr) return;  // Reported already.
    const std::string who =
        absl::StrCat("\"", view.instance, "\" (", Where(provider.path), ")");
    if (need.image_encoder && !provider.image_encoder) {
      return Fail(need.path, absl::StrCat(binding, " names ", who,
                                          ", expected an image encoder"));
    }
    const ProvidedView* provided = contract->Find(view.view);
    if (provided == nullptr) {
      std::vector<std::string> views;
      for (const ProvidedView& p : contract->provides) views.push_back(p.view);
      return Fail(
          need.path,
          absl::StrCat(binding, " needs the view \"", view.view, "\" of ", who,
                       because, ", which provides ",
                       views.empty() ? "none" : absl::StrJoin(views, ", ")));
    }
    if (view.dim > 0 && provided->dim > 0 && view.dim != provided->dim &&
        asker.exact && provider.exact) {
      Fail(need.path,
           absl::StrCat(binding, " needs the view \"", view.view,
                        "\" with dimension ", view.dim, " (", Where(asker.path),
                        ")", because, ", but it has ", provided->dim, " in ",
                        who));
    }
    if (view.needs_codes && contract->codes.codes_per_group.empty()) {
      Fail(need.path,
           absl::StrCat(binding, " needs discrete codes", because, "; ", who,
                        provider.type.empty()
                            ? ""
                            : absl::StrCat(", a ", provider.type, ","),
                        " has none"));
    }
    if (view.needs_fixed && !contract->fixed) {
      Fail(need.path,
           absl::StrCat(binding, " needs a fixed network", because, "; ", who,
                        " is trained; set frozen: true in an encoder of its "
                        "own"));
    }
  }

  void Teachers() {
    if (x_.teacher().enabled()) return;
    for (const auto* list : {&entries_.objectives, &entries_.tasks}) {
      for (const PluginEntry& entry : *list) {
        const Contract* contract = Find(entry);
        if (contract != nullptr && contract->needs_teacher && entry.exact) {
          Fail(entry.config_path,
               "needs a teacher, but there is none; set teacher { enabled: "
               "true }");
        }
      }
    }
  }

  void Tokenizer() {
    if (x_.has_text()) return;
    for (const PluginEntry& entry : entries_.encoders) {
      if (entry.Is(PluginKind::kTextEncoder)) {
        Fail(entry.path,
             "a text encoder needs a tokenizer; set text { sentencepiece { ... "
             "} } or text { wordpiece { ... } }");
      }
    }
  }

  const Contract* Find(const PluginEntry& entry) const {
    const auto found = instances_.find(entry.name);
    return found != instances_.end() && found->second.path == entry.path
               ? book_->Find(entry.name)
               : nullptr;
  }

  // What the batch must hold for `instance` and all it is bound to.
  void CollectKeys(const std::string& name, std::set<std::string>* visited,
                   std::map<std::string, std::string>* keys) const {
    if (!visited->insert(name).second) return;
    if (const Contract* contract = book_->Find(name)) {
      for (const std::string& key : contract->batch_keys) {
        keys->emplace(key, name);
      }
    }
    const auto found = instances_.find(name);
    if (found == instances_.end()) return;
    for (const Need& need : found->second.needs) {
      CollectKeys(need.view.instance, visited, keys);
    }
  }

  // A source that says in its contract what its batches hold is held to it.
  void BatchKeys(const PluginEntry& entry, const std::string& stream,
                 const std::string& path) {
    if (Find(entry) == nullptr) return;
    for (const PluginEntry& source : entries_.streams) {
      if (source.name != stream || source.type == nullptr || !source.valid) {
        continue;
      }
      const std::vector<std::string> held =
          source.type->contract(source.name, *source.config, *book_).batch_keys;
      if (held.empty()) return;
      std::set<std::string> visited;
      std::map<std::string, std::string> keys;
      CollectKeys(entry.name, &visited, &keys);
      for (const auto& [key, user] : keys) {
        if (std::find(held.begin(), held.end(), key) == held.end()) {
          Fail(path, absl::StrCat("stream \"", stream, "\" holds ",
                                  absl::StrJoin(held, ", "), ", but ",
                                  entry.path, " needs \"", key, "\"",
                                  user == entry.name
                                      ? ""
                                      : absl::StrCat(" for \"", user, "\"")));
        }
      }
    }
  }

  const Experiment& x_;
  const PluginEntries& entries_;
  const Provenance& provenance_;
  ContractBook* book_;
  std::vector<ConfigError>* errors_;
  std::map<std::string, Instance> instances_;
};

}  // namespace

void CheckContracts(const Experiment& stage, const PluginEntries& entries,
                    const Provenance& provenance, ContractBook* book,
                    std::vector<ConfigError>* errors) {
  ContractChecker(stage, entries, provenance, book, errors).Check();
}

}  // namespace semvq
