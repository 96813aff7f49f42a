#include "tasks/captioning/captioning.h"

#include <torch/types.h>

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/eval/caption_metrics.h"
#include "core/forward/types.h"
#include "core/nn/beam_search.h"
#include "core/nn/text_decoder.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/objective/text_loss.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/json.h"

namespace semvq {
namespace {

// References by image id.
using References = absl::btree_map<std::string, std::vector<std::string>>;
// What was written, by image id.
using Captions = absl::btree_map<std::string, std::string>;

// "42" of "val2014/COCO_val2014_000000000042.jpg"; empty without a number.
std::string NumberOfName(absl::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot != absl::string_view::npos) name = name.substr(0, dot);
  size_t begin = name.size();
  while (begin > 0 && absl::ascii_isdigit(name[begin - 1])) --begin;
  name.remove_prefix(begin);
  while (name.size() > 1 && name[0] == '0') name.remove_prefix(1);
  return std::string(name);
}

class Captioning : public Task {
 public:
  Captioning(const CaptioningConfig& config, const PluginContext& context,
             int64_t visual_dim)
      : config_(config),
        instance_(context.instance),
        writer_(config.written_by().empty() ? instance_ : config.written_by()),
        tokenizer_(context.tokenizer) {
    if (writer_ != instance_) return;
    decoder_ = register_module("decoder", std::make_shared<TextDecoder>(
                                              config.decoder(), visual_dim,
                                              context.tokenizer->vocab_size()));
    prefix_ = {tokenizer_->cls_id()};
    for (const int64_t id : tokenizer_->Encode(config.prompt()))
      prefix_.push_back(id);
  }

  bool can_fine_tune() const override { return writer_ == instance_; }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view != kCaptions || writer_ != instance_)
      return Task::ComputeView(key, forward);
    ViewKey visual = key;
    visual.instance = config_.visual();
    visual.view = kTokens;
    return Write(forward.Get<Tokens>(visual));
  }

  ObjectiveOutput Compute(Forward& forward) override;
  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  // A caption for each image.
  std::vector<std::string> Write(const Tokens& visual);
  // Adds the batch's captions, and its texts where they are the references.
  absl::Status Gather(const Batch& batch,
                      const std::vector<std::string>& written,
                      Captions& captions, References& references) const;
  absl::Status AddScores(const Captions& captions, const References& references,
                         int64_t skipped, TaskResult& result) const;
  absl::StatusOr<std::string> ImageId(const std::string& id) const;

  const CaptioningConfig config_;
  const std::string instance_, writer_;  // writer_: whose decoder writes.
  const Tokenizer* const tokenizer_;
  std::shared_ptr<TextDecoder> decoder_;  // Null where another writes.
  std::vector<int64_t> prefix_;           // [CLS] and the prompt.
};

// Mean over the captions' tokens, [SEP] among them.
ObjectiveOutput Captioning::Compute(Forward& forward) {
  const Batch& batch = forward.batch();
  const Tokens& visual =
      forward.Get<Tokens>(ImageKey(config_.visual(), kTokens));
  const auto prefix = static_cast<int64_t>(prefix_.size());
  const at::Tensor start = torch::tensor(prefix_, at::kLong)
                               .to(batch.text_ids.device())
                               .expand({batch.num_texts(), prefix});
  // The prompt stands between [CLS] and the text.
  const int64_t words = batch.text_ids.size(1) - 1;
  const at::Tensor ids =
      at::cat({start, batch.text_ids.narrow(1, 1, words)}, 1);
  CrossMemory memory{visual.values, visual.mask, batch.text_to_image};
  // One text an image: each reads its own, without a copy.
  if (batch.num_texts() == batch.num_images()) memory.index = at::Tensor();
  const at::Tensor hidden =
      decoder_->Hidden(ids.narrow(1, 0, ids.size(1) - 1), memory);
  // What follows the prompt's tokens is given; what follows its last is not.
  const at::Tensor logits =
      decoder_->Logits(hidden.narrow(1, prefix - 1, words));
  const at::Tensor targets =
      batch.text_ids.narrow(1, 1, words)
          .masked_fill(batch.text_mask.narrow(1, 1, words).logical_not(), -1);
  ObjectiveOutput output;
  output.losses = {
      {"caption",
       MeanOverCount(
           TokenLosses(logits, targets, config_.label_smoothing()).sum(),
           targets.ge(0).sum(), forward.group())}};
  output.metrics = {{"token_top1", Top1(logits, targets)}};
  return output;
}

std::vector<std::string> Captioning::Write(const Tokens& visual) {
  c10::NoGradGuard no_grad;
  BeamSearchOptions options;
  options.beam_size = config_.beam_size();
  options.max_new_tokens = config_.max_new_tokens();
  options.min_new_tokens = config_.min_new_tokens();
  options.length_penalty = config_.length_penalty();
  options.end = tokenizer_->sep_id();
  // No caption teaches to write these.
  options.barred = {tokenizer_->pad_id(), tokenizer_->cls_id(),
                    tokenizer_->mask_id(), tokenizer_->unk_id()};
  const auto next = [&](const at::Tensor& ids, const at::Tensor& sources) {
    const at::Tensor hidden =
        decoder_->Hidden(ids, CrossMemory{visual.values, visual.mask, sources});
    return decoder_->Logits(hidden.select(1, -1));
  };
  std::vector<std::string> captions;
  for (const WrittenText& text :
       BeamSearch(next, visual.values.size(0), prefix_, options,
                  visual.values.device())) {
    captions.push_back(tokenizer_->Decode(text.ids));
  }
  return captions;
}

absl::StatusOr<std::string> Captioning::ImageId(const std::string& id) const {
  if (!config_.id_from_name()) return id;
  std::string number = NumberOfName(id);
  if (!number.empty()) return number;
  return absl::InvalidArgumentError(absl::StrCat(
      "task ", instance_, ": the name \"", id,
      "\" does not end with a number; leave out id_from_name, or name the "
      "images as COCO does"));
}

absl::Status Captioning::Gather(const Batch& batch,
                                const std::vector<std::string>& written,
                                Captions& captions,
                                References& references) const {
  std::vector<std::string> ids;
  for (size_t i = 0; i < batch.image_ids.size(); ++i) {
    auto id = ImageId(batch.image_ids[i]);
    if (!id.ok()) return id.status();
    if (!captions.emplace(*id, written[i]).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("task ", instance_, ": image ", *id,
                       " comes twice in the stream, expected one sample an "
                       "image; set group_by_image in the stream's source"));
    }
    ids.push_back(*std::move(id));
  }
  if (!config_.references().empty() || config_.predict_only())
    return absl::OkStatus();
  const std::vector<TextPlace> places = TextPlaces(batch);
  for (size_t t = 0; t < places.size(); ++t)
    references[ids[places[t].image]].push_back(batch.texts[t].text);
  return absl::OkStatus();
}

absl::Status Captioning::AddScores(const Captions& captions,
                                   const References& references,
                                   int64_t skipped, TaskResult& result) const {
  std::vector<CaptionCase> corpus;
  int64_t texts = 0;
  for (const auto& [id, caption] : captions) {
    const auto found = references.find(id);
    if (found == references.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task ", instance_, ": image ", id, " has no caption to compare with",
          config_.references().empty()
              ? "; evaluate a split with captions, or set predict_only"
              : absl::StrCat(" in ", config_.references(),
                             "; evaluate the split that it is of")));
    }
    corpus.push_back({CaptionTokens(caption), {}});
    for (const std::string& text : found->second)
      corpus.back().references.push_back(CaptionTokens(text));
    texts += static_cast<int64_t>(found->second.size());
  }
  absl::StrAppend(&result.note, ", ", texts, " references");
  const auto missing =
      static_cast<int64_t>(references.size() - captions.size());
  if (missing > 0) {
    const std::string what =
        absl::StrCat(missing, " of ", references.size(),
                     " images with references are not in the stream");
    if (!config_.partial()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "task ", instance_, ": ", what, " (", skipped,
          " bad samples were skipped); complete the stream, or set partial to "
          "score the others alone"));
    }
    absl::StrAppend(&result.note, "; ", what, " and are left out");
  }
  const auto add = [&](const std::string& name, double value, bool headline) {
    TaskMetric metric;
    metric.name = name;
    metric.value = 100 * value;
    metric.chance = std::nan("");
    metric.unit = "%";
    metric.headline = headline;
    result.metrics.push_back(metric);
  };
  const std::array<double, 4> bleu = CorpusBleu(corpus);
  for (size_t n = 0; n < bleu.size(); ++n)
    add(absl::StrCat("BLEU-", n + 1), bleu[n], n == 3);
  add("CIDEr", Cider(corpus).mean, true);
  return absl::OkStatus();
}

absl::StatusOr<TaskResult> Captioning::Evaluate(EvalContext& context) {
  References references;
  if (!config_.references().empty()) {
    auto loaded = LoadCocoCaptions(config_.references());
    if (!loaded.ok()) return loaded.status();
    references = *std::move(loaded);
  }
  Captions captions;
  const auto write = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    return BatchOutcome{
        {},
        forward->Get<std::vector<std::string>>(ImageKey(writer_, kCaptions))};
  };
  absl::Status status = context.ShareBatches(
      "", write, [&](const Batch& batch, const BatchOutcome& written) {
        return Gather(batch, written.texts, captions, references);
      });
  if (!status.ok()) return status;
  if (captions.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": the stream holds no image"));
  }
  TaskResult result;
  result.note = absl::StrCat(captions.size(), " images");
  if (!config_.predict_only()) {
    status = AddScores(captions, references, context.skipped(), result);
    if (!status.ok()) return status;
  } else {
    TaskMetric count;
    count.name = "images captioned";
    count.value = static_cast<double>(captions.size());
    count.chance = std::nan("");
    count.headline = true;
    result.metrics.push_back(count);
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  std::string json = "[";
  for (const auto& [id, caption] : captions) {
    absl::StrAppend(&json, json.size() > 1 ? ",\n" : "\n",
                    "{\"image_id\": ", JsonNumberOrString(id),
                    ", \"caption\": ", JsonString(caption), "}");
  }
  json += "\n]\n";
  const std::string path = JoinPath(context.output_folder(),
                                    absl::StrCat(instance_, "_result.json"));
  status = AtomicWriteFile(path, json);
  if (!status.ok()) return status;
  result.files.push_back(path);
  return result;
}

}  // namespace

absl::Status ValidateCaptioning(const CaptioningConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("visual", config.visual());
  ValidateTextDecoder(config.decoder(), &errors);
  errors.RequireProbability("label_smoothing", config.label_smoothing());
  constexpr int64_t kMostBeams = 1000;
  errors.Require(config.beam_size() > 0 && config.beam_size() <= kMostBeams,
                 "beam_size", config.beam_size(), "1 to 1000");
  errors.RequirePositive("max_new_tokens", config.max_new_tokens());
  errors.Require(config.min_new_tokens() >= 0 &&
                     config.min_new_tokens() < config.max_new_tokens(),
                 "min_new_tokens", config.min_new_tokens(),
                 "0 or more, and less than max_new_tokens");
  errors.Require(config.length_penalty() >= 0 && config.length_penalty() <= 100,
                 "length_penalty", config.length_penalty(), "0 to 100");
  errors.Require(!config.predict_only() || config.references().empty(),
                 "predict_only", "true together with references",
                 "one of them: predict_only compares nothing");
  return errors.status();
}

Contract CaptioningContract(const std::string& /*instance*/,
                            const CaptioningConfig& config,
                            const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text"};
  if (config.written_by().empty()) {
    contract.needs = {{"visual", config.visual(), kTokens}};
    contract.provides = {{kCaptions, 0}};
  } else {
    contract.needs = {{"written_by", config.written_by(), kCaptions}};
  }
  if (!config.references().empty()) {
    contract.files = {{"references", config.references(),
                       "COCO's captions file (JSON) with the references"}};
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeCaptioning(
    const CaptioningConfig& config, const PluginContext& context) {
  if (!config.written_by().empty()) {
    return std::shared_ptr<Task>(
        std::make_shared<Captioning>(config, context, /*visual_dim=*/0));
  }
  const std::string name =
      absl::StrCat("captioning \"", context.instance, "\"");
  const int64_t dim = context.book->Dim(config.visual(), kTokens);
  absl::Status status = CheckTextDecoder(
      config.decoder(), dim,
      context.tokenizer == nullptr ? 0 : context.tokenizer->vocab_size(), name);
  if (!status.ok()) return status;
  // [CLS], the prompt, and what is read or written after it.
  const auto prefix = static_cast<int64_t>(
      1 + context.tokenizer->Encode(config.prompt()).size());
  const int64_t positions = config.decoder().max_positions();
  if (config.max_new_tokens() > positions - prefix ||
      context.book->max_tokens - 1 > positions - prefix) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": decoder.max_positions is ", positions, ", expected at least ",
        "the ", prefix - 1, " tokens of the prompt and the larger of text.",
        "max_tokens ", context.book->max_tokens, " and 1 + max_new_tokens ",
        config.max_new_tokens()));
  }
  return std::shared_ptr<Task>(
      std::make_shared<Captioning>(config, context, dim));
}

}  // namespace semvq
