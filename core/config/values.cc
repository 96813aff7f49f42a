// Values, names and references of the core's own messages.
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/config/entries.h"
#include "core/config/names.h"
#include "core/config/parse.h"
#include "core/forward/views.h"
#include "re2/re2.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;

constexpr int kLongestName = 100;

class ValueChecker {
 public:
  ValueChecker(const Experiment& stage, const Provenance& provenance,
               std::vector<ConfigError>* errors)
      : x_(stage), provenance_(provenance), errors_(errors) {
    for (const DataStream& stream : x_.data().streams()) {
      streams_.push_back(stream.name());
    }
  }

  void Check() {
    Finite(x_, "");
    if (x_.has_name() || !x_.checkpoint().has_folder()) {
      Label("name", x_.name(), /*dots=*/true);
    }
    Data();
    Text();
    Instances();
    Losses();
    Optimization();
    Training();
    Start();
  }

 private:
  void Fail(const std::string& path, std::string message) {
    if (provenance_.IsBroken(path)) return;
    errors_->push_back(ErrorAt(provenance_, path, std::move(message)));
  }

  // The comparisons are such that NaN fails; Finite reports it, so only once.
  void AtLeast(const std::string& path, double value, double least) {
    if (std::isfinite(value) && value < least) {
      Fail(path, absl::StrCat("got ", value, ", expected at least ", least));
    }
  }
  void Within(const std::string& path, double value, double least,
              double most) {
    if (std::isfinite(value) && (value < least || value > most)) {
      Fail(path,
           absl::StrCat("got ", value, ", expected ", least, " to ", most));
    }
  }
  void Positive(const std::string& path, double value) {
    if (std::isfinite(value) && value <= 0) {
      Fail(path, absl::StrCat("got ", value, ", expected more than 0"));
    }
  }

  // Names stand in file names, parameter names and config paths.
  bool Label(const std::string& path, const std::string& name, bool dots) {
    bool good = !name.empty() && name.size() <= kLongestName &&
                (absl::ascii_isalnum(name[0]) || name[0] == '_');
    for (const char c : name) {
      good = good && (absl::ascii_isalnum(c) || c == '_' || c == '-' ||
                      (dots && c == '.'));
    }
    if (good) return true;
    Fail(path, absl::StrCat(name.empty() ? "not set" : "got \"" + name + "\"",
                            ", expected letters, digits, '_', '-'",
                            dots ? ", '.'" : "", " (at most ", kLongestName,
                            ", not starting with a sign)"));
    return false;
  }

  void Pattern(const std::string& path, const std::string& pattern) {
    const RE2 compiled(pattern, RE2::Quiet);
    if (!compiled.ok()) {
      Fail(path, absl::StrCat("got \"", pattern,
                              "\", which is no regular "
                              "expression (RE2): ",
                              compiled.error()));
    }
  }

  void StreamExists(const std::string& path, const std::string& name) {
    for (const std::string& stream : streams_) {
      if (stream == name) return;
    }
    if (provenance_.IsBroken(EntryPath("data.streams", name))) return;
    Fail(path,
         absl::StrCat("names the stream \"", name, "\", which does not exist",
                      DidYouMean(name, streams_)));
  }

  // Every float of the core's messages; plugins check their own.
  void Finite(const pb::Message& message, const std::string& path) {
    using Field = pb::FieldDescriptor;
    const pb::Reflection* r = message.GetReflection();
    std::vector<const Field*> set;
    r->ListFields(message, &set);
    for (const Field* field : set) {
      const std::string field_path = FieldPath(path, field->name());
      if (field->cpp_type() == Field::CPPTYPE_DOUBLE) {
        bool finite = true;
        if (field->is_repeated()) {
          for (int i = 0; i < r->FieldSize(message, field); ++i) {
            finite &= std::isfinite(r->GetRepeatedDouble(message, field, i));
          }
        } else {
          finite = std::isfinite(r->GetDouble(message, field));
        }
        if (!finite) Fail(field_path, "not finite; expected a finite number");
      } else if (field->cpp_type() == Field::CPPTYPE_MESSAGE) {
        if (IsAny(*field->message_type())) continue;
        if (!field->is_repeated()) {
          Finite(r->GetMessage(message, field), field_path);
          continue;
        }
        const Field* name = NameField(*field->message_type());
        for (int i = 0; i < r->FieldSize(message, field); ++i) {
          const pb::Message& entry = r->GetRepeatedMessage(message, field, i);
          Finite(entry,
                 name == nullptr
                     ? EntryPath(field_path, i)
                     : EntryPath(field_path, entry.GetReflection()->GetString(
                                                 entry, name)));
        }
      }
    }
  }

  void Data() {
    const DataConfig& data = x_.data();
    Within("data.workers", data.workers(), 1, 1024);
    Within("data.prefetch", data.prefetch(), 1, 1024);
    Within("data.max_bad_fraction", data.max_bad_fraction(), 0, 1);
    AtLeast("data.max_pixels", static_cast<double>(data.max_pixels()), 1);
    AtLeast("data.cache_bytes", static_cast<double>(data.cache_bytes()), 0);
    for (const DataStream& stream : data.streams()) {
      const std::string path = EntryPath("data.streams", stream.name());
      Label(path + ".name", stream.name(), /*dots=*/true);
      AtLeast(path + ".texts_per_image", stream.texts_per_image(), 1);
      AtLeast(path + ".limit", static_cast<double>(stream.limit()), 0);
      Transform(path + ".transform", stream.transform());
    }
  }

  void Transform(const std::string& path, const ImageTransform& t) {
    Within(path + ".size", t.size(), 1, 4096);
    Positive(path + ".min_scale", t.min_scale());
    Within(path + ".max_scale", t.max_scale(), 0, 1);
    if (t.min_scale() > t.max_scale()) {
      Fail(path + ".min_scale",
           absl::StrCat("got ", t.min_scale(), ", expected at most max_scale, ",
                        t.max_scale()));
    }
    Positive(path + ".min_ratio", t.min_ratio());
    if (t.min_ratio() > t.max_ratio()) {
      Fail(path + ".min_ratio",
           absl::StrCat("got ", t.min_ratio(), ", expected at most max_ratio, ",
                        t.max_ratio()));
    }
    Within(path + ".flip", t.flip(), 0, 1);
    Within(path + ".randaugment_ops", t.randaugment_ops(), 0, 16);
    Within(path + ".randaugment_magnitude", t.randaugment_magnitude(), 0, 10);
    for (const auto& [field, size] : {std::make_pair("mean", t.mean_size()),
                                      std::make_pair("std", t.std_size())}) {
      if (size != 0 && size != 3) {
        Fail(FieldPath(path, field), absl::StrCat("got ", size,
                                                  " values, "
                                                  "expected none or 3 (RGB)"));
      }
    }
    for (const double value : t.std()) Positive(path + ".std", value);
  }

  void Text() {
    if (!x_.has_text()) return;
    const TextConfig& text = x_.text();
    Within("text.max_tokens", text.max_tokens(), 3, 65536);
    AtLeast("text.max_words", text.max_words(), 1);
    if (text.has_sentencepiece()) {
      const SentencePiece& piece = text.sentencepiece();
      Within("text.sentencepiece.vocab_size", piece.vocab_size(), 16, 1 << 20);
      ReadOrMade("text.sentencepiece", "model", piece.model(),
                 piece.train_on());
    } else if (text.has_wordpiece()) {
      const WordPiece& words = text.wordpiece();
      AtLeast("text.wordpiece.min_images", words.min_images(), 1);
      ReadOrMade("text.wordpiece", "vocab", words.vocab(), words.train_on());
    } else {
      Fail("text",
           "no tokenizer; expected sentencepiece { ... } or wordpiece { ... }");
    }
  }

  // A tokenizer is a file that is there, or made from the texts of streams.
  template <typename Streams>
  void ReadOrMade(const std::string& path, const char* field,
                  const std::string& file, const Streams& train_on) {
    if (file.empty() == train_on.empty()) {
      Fail(path,
           absl::StrCat(file.empty() ? "neither " : "both ", field,
                        file.empty() ? " nor train_on is" : " and train_on are",
                        " set; expected one: the path of a file, or the "
                        "streams to make it from"));
    }
    for (const std::string& stream : train_on) {
      StreamExists(path + ".train_on", stream);
    }
  }

  void Instances() {
    std::map<std::string, std::string> paths;
    const auto add = [&](const char* list, const std::string& name) {
      const std::string path = EntryPath(list, name);
      if (!Label(path + ".name", name, /*dots=*/false)) return;
      if (name == kVisual) {
        Fail(path + ".name",
             "\"visual\" is what visual_tokens provides; choose another name");
        return;
      }
      const auto [first, is_new] = paths.emplace(name, path);
      if (!is_new) {
        Fail(path + ".name",
             absl::StrCat("\"", name, "\" is the name of ", first->second, " (",
                          ToString(provenance_.Locate(first->second)),
                          ") already; instances need names of their own"));
      }
    };
    for (const EncoderConfig& e : x_.encoders()) add("encoders", e.name());
    for (const QuantizerConfig& q : x_.quantizers()) {
      add("quantizers", q.name());
    }
    for (const ObjectiveConfig& o : x_.objectives()) {
      add("objectives", o.name());
    }
    for (const TaskConfig& t : x_.tasks()) add("tasks", t.name());
  }

  void Losses() {
    for (const QuantizerConfig& q : x_.quantizers()) {
      const std::string path = EntryPath("quantizers", q.name());
      Within(path + ".dim", static_cast<double>(q.dim()), 0, 65536);
      for (const NamedWeight& w : q.loss_weights()) {
        AtLeast(EntryPath(path + ".loss_weights", w.name()) + ".weight",
                w.weight(), 0);
      }
    }
    for (const ObjectiveConfig& o : x_.objectives()) {
      const std::string path = EntryPath("objectives", o.name());
      AtLeast(path + ".weight", o.weight(), 0);
      AtLeast(path + ".ramp_steps", static_cast<double>(o.ramp_steps()), 0);
    }
    Within("teacher.momentum", x_.teacher().momentum(), 0, 1);
    for (const TaskConfig& t : x_.tasks()) {
      const std::string path = EntryPath("tasks", t.name());
      AtLeast(path + ".weight", t.weight(), 0);
      AtLeast(path + ".batch_size", t.batch_size(), 1);
      if (t.has_stream()) {
        StreamExists(path + ".stream", t.stream());
      } else if (t.evaluate()) {
        Fail(path + ".stream",
             absl::StrCat("not set; expected the stream to evaluate",
                          DidYouMean("", streams_)));
      }
    }
  }

  void Optimization() {
    const OptimizerConfig& o = x_.optimizer();
    Positive("optimizer.lr", o.lr());
    for (const auto& [field, beta] : {std::make_pair("beta1", o.beta1()),
                                      std::make_pair("beta2", o.beta2())}) {
      if (std::isfinite(beta) && !(beta >= 0 && beta < 1)) {
        Fail(FieldPath("optimizer", field),
             absl::StrCat("got ", beta, ", expected at least 0 and below 1"));
      }
    }
    Positive("optimizer.eps", o.eps());
    AtLeast("optimizer.weight_decay", o.weight_decay(), 0);
    AtLeast("optimizer.clip_norm", o.clip_norm(), 0);
    for (const ParameterGroup& group : o.groups()) {
      const std::string path = EntryPath("optimizer.groups", group.name());
      if (group.pattern().empty()) {
        Fail(path + ".pattern",
             "not set; expected a regular expression of parameter names");
      }
      Pattern(path + ".pattern", group.pattern());
      AtLeast(path + ".lr_scale", group.lr_scale(), 0);
      AtLeast(path + ".weight_decay", group.weight_decay(), 0);
    }
    const ScheduleConfig& s = x_.schedule();
    AtLeast("schedule.warmup_steps", static_cast<double>(s.warmup_steps()), 0);
    AtLeast("schedule.warmup_lr", s.warmup_lr(), 0);
    AtLeast("schedule.min_lr", s.min_lr(), 0);
    if (s.min_lr() > o.lr()) AboveLr("schedule.min_lr", s.min_lr());
    if (s.warmup_steps() > 0 && s.warmup_lr() > o.lr()) {
      AboveLr("schedule.warmup_lr", s.warmup_lr());
    }
  }

  void AboveLr(const std::string& path, double value) {
    Fail(path, absl::StrCat("got ", value, ", expected at most optimizer.lr, ",
                            x_.optimizer().lr(), " (",
                            ToString(provenance_.Locate("optimizer.lr")), ")"));
  }

  void Spikes(const LossSpikes& spikes) {
    const std::string path = "trainer.loss_spikes";
    AtLeast(path + ".threshold", spikes.threshold(), 0);
    AtLeast(path + ".window", spikes.window(), 4);
    AtLeast(path + ".steps", spikes.steps(), 1);
    AtLeast(path + ".max_rollbacks", spikes.max_rollbacks(), 0);
    if (spikes.action() == LossSpikes::ROLL_BACK &&
        x_.checkpoint().every() == 0) {
      Fail(path + ".action",
           "got ROLL_BACK, but no checkpoints are saved on the way to go back "
           "to; set checkpoint { every }");
    }
  }

  void Training() {
    const TrainerConfig& t = x_.trainer();
    AtLeast("trainer.batch_size", t.batch_size(), 1);
    AtLeast("trainer.accumulation", t.accumulation(), 1);
    AtLeast("trainer.threads", t.threads(), 0);
    AtLeast("trainer.max_nonfinite_steps", t.max_nonfinite_steps(), 1);
    Spikes(t.loss_spikes());
    if (t.has_steps()) {
      AtLeast("trainer.steps", static_cast<double>(t.steps()), 1);
    }
    if (t.has_epochs()) Positive("trainer.epochs", t.epochs());
    bool has_loss = x_.objectives_size() > 0;
    for (const TaskConfig& task : x_.tasks()) {
      has_loss = has_loss || task.fine_tune();
      if (task.fine_tune() && t.stream().empty()) {
        Fail(EntryPath("tasks", task.name()) + ".fine_tune",
             "a task is fine-tuned on trainer.stream, which is not set");
      }
    }
    if (!t.stream().empty()) {
      StreamExists("trainer.stream", t.stream());
      if (!t.has_steps() && !t.has_epochs() &&
          !provenance_.IsBroken("trainer.steps") &&
          !provenance_.IsBroken("trainer.epochs")) {
        Fail("trainer", "neither steps nor epochs is set; expected one");
      }
      if (!has_loss) {
        Fail("trainer.stream",
             "there is nothing to train: no objective and no task with "
             "fine_tune: true");
      }
    }
    const CheckpointConfig& c = x_.checkpoint();
    AtLeast("checkpoint.every", static_cast<double>(c.every()), 0);
    AtLeast("checkpoint.keep", c.keep(), 1);
    const LoggingConfig& l = x_.logging();
    AtLeast("logging.every", static_cast<double>(l.every()), 1);
    AtLeast("logging.gradient_share_every",
            static_cast<double>(l.gradient_share_every()), 0);
  }

  void Start() {
    if (!x_.has_init_from()) return;
    const InitFrom& init = x_.init_from();
    if (init.path().empty() && init.stage().empty() && init.weights().empty()) {
      Fail("init_from", "neither path, stage nor weights is set; expected one");
    }
    for (const WeightsImport& import : init.weights()) {
      const std::string path = EntryPath("init_from.weights", import.name());
      const std::pair<const char*, const std::string*> needed[] = {
          {"path", &import.path()},
          {"key_map", &import.key_map()},
          {"to", &import.to()}};
      for (const auto& [field, value] : needed) {
        if (value->empty()) {
          Fail(FieldPath(path, field),
               "is not set; docs/pretrained_weights.md "
               "has the common ones");
        }
      }
      AtLeast(FieldPath(path, "first_layer"), import.first_layer(), 0);
    }
    for (const std::string& pattern : init.allow_missing()) {
      Pattern("init_from.allow_missing", pattern);
    }
    for (const std::string& pattern : init.allow_unexpected()) {
      Pattern("init_from.allow_unexpected", pattern);
    }
  }

  const Experiment& x_;
  const Provenance& provenance_;
  std::vector<ConfigError>* errors_;
  std::vector<std::string> streams_;
};

}  // namespace

void CheckValues(const Experiment& stage, const Provenance& provenance,
                 std::vector<ConfigError>* errors) {
  ValueChecker(stage, provenance, errors).Check();
}

}  // namespace semvq
