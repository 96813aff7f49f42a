#include "tasks/classification/image_collector.h"

#include <torch/types.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/forward/types.h"
#include "core/plugin/task.h"

namespace semvq {
namespace {

using ProbeConfig = ClassificationConfig::LinearProbe;

}  // namespace

ImageCollector::ImageCollector(
    const ClassificationConfig& config, std::string where,
    const std::vector<std::string>& classes,
    std::vector<std::vector<int64_t>> codes_per_group)
    : config_(config),
      where_(std::move(where)),
      classes_(classes),
      codes_per_group_(std::move(codes_per_group)) {
  for (size_t c = 0; c < classes_.size(); ++c)
    index_[classes_[c]] = static_cast<int64_t>(c);
}

absl::Status ImageCollector::Error(absl::string_view message) const {
  return absl::FailedPreconditionError(absl::StrCat(where_, ": ", message));
}

absl::StatusOr<std::vector<int64_t>> ImageCollector::Labels(
    const Batch& batch) const {
  std::vector<int64_t> labels(batch.num_images(), -1);
  const at::Tensor owner = batch.text_to_image.to(at::kCPU);
  for (int64_t t = 0; t < batch.num_texts(); ++t) {
    const int64_t image = owner[t].item<int64_t>();
    for (const auto& [answer, share] : batch.texts[t].answers) {
      const auto found = index_.find(answer);
      if (found == index_.end()) continue;
      if (labels[image] >= 0 && labels[image] != found->second) {
        return Error(absl::StrCat(
            "image \"", batch.image_ids[image], "\" is labelled \"",
            classes_[labels[image]], "\" and \"", answer,
            "\", expected one of the classes; mend the records, or list "
            "classes that exclude each other"));
      }
      labels[image] = found->second;
    }
  }
  return labels;
}

absl::StatusOr<at::Tensor> ImageCollector::Features(size_t probe,
                                                    Forward& forward) const {
  const ProbeConfig& config = config_.probes(static_cast<int>(probe));
  switch (config.features()) {
    case ProbeConfig::CLS: {
      const Tokens& tokens =
          forward.Get<Tokens>(ImageKey(config.from(), kTokens));
      if (!tokens.has_cls) {
        return Error(absl::StrCat("probe \"", config.name(), "\": \"",
                                  config.from(),
                                  "\" has no [CLS]; use features: MEAN"));
      }
      return tokens.values.select(1, 0);
    }
    case ProbeConfig::MEAN: {
      const Tokens& tokens =
          forward.Get<Tokens>(ImageKey(config.from(), kTokens));
      const int64_t first = tokens.has_cls ? 1 : 0;
      return tokens.values.narrow(1, first, tokens.values.size(1) - first)
          .mean(1);
    }
    case ProbeConfig::EMBEDDING:
      return forward.Get<at::Tensor>(ImageKey(config.from(), kImageEmbedding));
    case ProbeConfig::CODE_VECTORS:
      return forward.Get<QuantizedTokens>(ImageKey(config.from(), kQuantized))
          .quantized.vectors.mean(1);
    case ProbeConfig::CODES: {
      const at::Tensor& codes =
          forward.Get<QuantizedTokens>(ImageKey(config.from(), kQuantized))
              .quantized.codes;  // [B, N, groups]
      std::vector<at::Tensor> groups;
      for (size_t g = 0; g < codes_per_group_[probe].size(); ++g) {
        // Codes of no position count into a column that is dropped.
        const at::Tensor code = codes.select(2, static_cast<int64_t>(g)) + 1;
        const int64_t size = codes_per_group_[probe][g];
        const at::Tensor counts =
            at::zeros({code.size(0), size + 1},
                      code.options().dtype(at::kFloat))
                .scatter_add_(
                    1, code,
                    at::ones(code.sizes(), code.options().dtype(at::kFloat)))
                .narrow(1, 1, size);
        groups.push_back(counts / counts.sum(1, true).clamp_min(1));
      }
      return at::cat(groups, 1);
    }
  }
  return Error("unknown features");
}

absl::StatusOr<LabelledImages> ImageCollector::Collect(
    EvalContext& context, const std::string& stream, bool zero_shot) const {
  LabelledImages images;
  std::vector<at::Tensor> embeddings;
  std::vector<std::vector<at::Tensor>> features(config_.probes_size());
  const auto compute = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    absl::StatusOr<std::vector<int64_t>> labels = Labels(batch);
    if (!labels.ok()) return labels.status();
    std::vector<int64_t> rows;
    for (size_t i = 0; i < labels->size(); ++i) {
      if ((*labels)[i] >= 0) rows.push_back(static_cast<int64_t>(i));
    }
    BatchOutcome outcome;
    if (rows.empty()) return outcome;
    const at::Tensor index = torch::tensor(rows, at::kLong);
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const auto keep = [&](const at::Tensor& t) {
      outcome.tensors.push_back(
          t.detach().to(at::kCPU, at::kDouble).index_select(0, index));
    };
    if (zero_shot) {
      keep(forward->Get<at::Tensor>(
          ImageKey(config_.zero_shot().contrastive(), kImageEmbedding)));
    }
    for (size_t p = 0; p < features.size(); ++p) {
      absl::StatusOr<at::Tensor> values = Features(p, *forward);
      if (!values.ok()) return values.status();
      keep(*values);
      if (!outcome.tensors.back().isfinite().all().item<bool>()) {
        return Error(absl::StrCat(
            "features of \"", config_.probes(static_cast<int>(p)).from(),
            "\" are not finite; the model has diverged, go back to an earlier "
            "checkpoint"));
      }
    }
    return outcome;
  };
  const auto take = [&](const Batch& batch, const BatchOutcome& outcome) {
    absl::StatusOr<std::vector<int64_t>> labels = Labels(batch);
    if (!labels.ok()) return labels.status();
    for (size_t i = 0; i < labels->size(); ++i) {
      if ((*labels)[i] < 0) {
        ++images.without_class;
        continue;
      }
      images.ids.push_back(batch.image_ids[i]);
      images.labels.push_back((*labels)[i]);
    }
    images.device = batch.text_ids.device();
    if (outcome.tensors.empty()) return absl::OkStatus();
    size_t next = 0;
    if (zero_shot) embeddings.push_back(outcome.tensors[next++]);
    for (std::vector<at::Tensor>& of_probe : features)
      of_probe.push_back(outcome.tensors[next++]);
    return absl::OkStatus();
  };
  const absl::Status status = context.ShareBatches(stream, compute, take);
  if (!status.ok()) return status;
  if (images.labels.empty()) {
    return Error(absl::StrCat(
        stream.empty() ? "the stream" : absl::StrCat("stream \"", stream, "\""),
        " holds no image with one of the classes ",
        absl::StrJoin(
            classes_.begin(),
            classes_.begin() +
                std::min<int64_t>(3, static_cast<int64_t>(classes_.size())),
            ", "),
        ", ... (", images.without_class,
        " images without); expected labels as in the list of classes"));
  }
  if (zero_shot) images.embedding = at::cat(embeddings);
  for (const std::vector<at::Tensor>& parts : features)
    images.features.push_back(at::cat(parts));
  return images;
}

}  // namespace semvq
