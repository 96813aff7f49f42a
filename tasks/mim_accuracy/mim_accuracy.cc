#include "tasks/mim_accuracy/mim_accuracy.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

class MimAccuracy : public Task {
 public:
  MimAccuracy(const MimAccuracyConfig& config, std::string instance)
      : config_(config), instance_(std::move(instance)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  MimAccuracyConfig config_;
  std::string instance_;
};

double ShareEqual(const at::Tensor& a, const at::Tensor& b) {
  return 100 * a.eq(b).to(at::kDouble).mean().item<double>();
}

absl::StatusOr<TaskResult> MimAccuracy::Evaluate(EvalContext& context) {
  // Predictions and targets at the masked patches, [n, G].
  std::vector<at::Tensor> predicted_parts, target_parts;
  const auto compute = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const ImageMask& mask =
        forward->Get<ImageMask>(ImageKey(config_.mim(), kImageMask));
    const at::Tensor codes =
        forward->Get<QuantizedTokens>(ImageKey(config_.quantizer(), kQuantized))
            .quantized.codes;  // [B, N, G]
    Variant masked;
    masked.image_mask = config_.mim();
    const auto& logits = forward->Get<std::vector<at::Tensor>>(
        ImageKey(config_.mim(), kMimLogits, masked));
    std::vector<at::Tensor> best;
    for (const at::Tensor& group : logits) best.push_back(group.argmax(-1));
    const at::Tensor predicted = at::stack(best, -1);  // [B, M, G]
    const at::Tensor target = at::gather(codes, 1,
                                         mask.positions.to(codes.device())
                                             .unsqueeze(-1)
                                             .expand({-1, -1, codes.size(2)}));
    at::Tensor valid = mask.valid.defined()
                           ? mask.valid
                           : at::ones(mask.positions.sizes(), at::kBool);
    valid = valid.to(codes.device()).logical_and(target.select(2, 0) >= 0);
    return BatchOutcome{{predicted.index({valid}).to(at::kCPU),
                         target.index({valid}).to(at::kCPU)},
                        {}};
  };
  absl::Status status = context.ShareBatches(
      "", compute, [&](const Batch& /*batch*/, BatchOutcome outcome) {
        predicted_parts.push_back(outcome.tensors[0]);
        target_parts.push_back(outcome.tensors[1]);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (predicted_parts.empty() || at::cat(target_parts).numel() == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": the stream holds no image"));
  }
  const at::Tensor predicted = at::cat(predicted_parts);
  const at::Tensor target = at::cat(target_parts);

  double majority = 0;
  for (int64_t g = 0; g < target.size(1); ++g) {
    const at::Tensor counts = at::bincount(target.select(1, g));
    majority += 100.0 * counts.max().item<double>() /
                static_cast<double>(target.size(0) * target.size(1));
  }
  // Random codes with the true codes' frequencies: the same predictions scored
  // against the targets in a random order.
  double random_codes = 0;
  std::vector<int64_t> order(target.size(0));
  for (int64_t p = 0; p < config_.permutations(); ++p) {
    std::iota(order.begin(), order.end(), 0);
    RandomStream(context.seed(), "mim_accuracy", p)
        .Shuffle(order.begin(), order.end());
    random_codes +=
        ShareEqual(predicted, target.index_select(0, torch::tensor(order))) /
        static_cast<double>(config_.permutations());
  }

  TaskResult result;
  TaskMetric top1;
  top1.name = "MIM top-1";
  top1.value = ShareEqual(predicted, target);
  top1.chance = random_codes;
  top1.unit = "%";
  top1.headline = true;
  TaskMetric control = top1;
  control.name = "control: most frequent code";
  control.value = majority;
  control.chance = std::nan("");
  TaskMetric random = control;
  random.name = "control: random codes";
  random.value = random_codes;
  result.metrics = {top1, control, random};
  result.note = absl::StrCat(target.size(0), " masked patches");
  return result;
}

}  // namespace

absl::Status ValidateMimAccuracy(const MimAccuracyConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("mim", config.mim());
  errors.RequireInstance("quantizer", config.quantizer());
  errors.Require(config.permutations() >= 1 && config.permutations() <= 10000,
                 "permutations", config.permutations(), "1 to 10000");
  return errors.status();
}

Contract MimAccuracyContract(const std::string& /*instance*/,
                             const MimAccuracyConfig& config,
                             const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image"};
  contract.needs = {
      {"mim", config.mim(), kImageMask},
      {"mim", config.mim(), kMimLogits},
      {"quantizer", config.quantizer(), kQuantized, 0, /*needs_codes=*/true,
       "masked image modeling is scored on discrete codes"},
  };
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeMimAccuracy(
    const MimAccuracyConfig& config, const PluginContext& context) {
  return std::shared_ptr<Task>(
      std::make_shared<MimAccuracy>(config, context.instance));
}

}  // namespace semvq
