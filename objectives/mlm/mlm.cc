#include "objectives/mlm/mlm.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "core/random/stream.h"
#include "core/text/tokenizer.h"
#include "objectives/mlm/config.pb.h"

namespace semvq {
namespace {

class Mlm : public Objective {
 public:
  Mlm(const MlmConfig& config, const PluginContext& context, int64_t dim)
      : config_(config),
        instance_(context.instance),
        special_(context.tokenizer->special()),
        vocab_size_(context.vocab_size) {
    dense_ = register_module("dense", std::make_shared<Linear>(dim, dim));
    // BERT's epsilon.
    norm_ = register_module("norm", std::make_shared<LayerNorm>(dim, 1e-12));
    decoder_ =
        register_module("decoder", std::make_shared<Linear>(dim, vocab_size_));
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kTextMask) return DrawMask(forward);
    if (key.view == kMlmLogits) {
      Variant masked = key.variant;
      masked.text_mask = instance_;
      const at::Tensor& fused =
          forward
              .Get<Tokens>(
                  FusedKey(config_.fusion(), kFused, masked, key.pairing))
              .values;
      const at::Tensor hidden = GatherPositions(fused, Mask(forward).positions);
      return decoder_->Forward(
          norm_->Forward(at::gelu(dense_->Forward(hidden))));
    }
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const TextMask& mask = Mask(forward);
    const at::Tensor targets =
        mask.targets.masked_fill(mask.valid.logical_not(), -1);
    const at::Tensor& logits =
        forward.Get<at::Tensor>(FusedKey(instance_, kMlmLogits));
    const double alpha =
        forward.has_teacher()
            ? LinearRamp(config_.alpha(), config_.alpha_ramp_steps(),
                         forward.step())
            : 0.0;
    at::Tensor soft;
    if (alpha > 0) {
      Variant teacher;
      teacher.teacher = true;
      soft = forward.Get<at::Tensor>(FusedKey(instance_, kMlmLogits, teacher));
    }
    const at::Tensor count = CountTargets(targets, forward.group());
    ObjectiveOutput out;
    out.losses = {
        {"mask", CrossEntropyAt(logits, targets, soft, alpha, count)}};
    out.metrics = {{"top1", Top1(logits, targets, count)}};
    return out;
  }

 private:
  const TextMask& Mask(Forward& forward) {
    return forward.Get<TextMask>(TextKey(instance_, kTextMask));
  }

  // The draws are made on the host, the choice that depends on the texts'
  // lengths on the device, so that nobody waits for the ids.
  TextMask DrawMask(Forward& forward) {
    c10::NoGradGuard no_grad;
    const Batch& batch = forward.batch();
    const at::Tensor& ids = batch.text_ids;
    const int64_t texts = ids.size(0), length = ids.size(1);
    const int64_t capacity = std::clamp<int64_t>(
        std::ceil(config_.mask_probability() * length), 1, length);

    at::Tensor order = at::empty({texts, length}, at::kDouble);
    at::Tensor fill = at::empty({texts, capacity}, at::kLong);
    double* order_out = order.data_ptr<double>();
    int64_t* fill_out = fill.data_ptr<int64_t>();
    for (const TextPlace& place : TextPlaces(batch)) {
      RandomStream random(forward.seed(), "mlm",
                          batch.sample_numbers[place.image], place.index);
      for (int64_t i = 0; i < length; ++i) *order_out++ = random.Uniform();
      for (int64_t i = 0; i < capacity; ++i) *fill_out++ = DrawFill(random);
    }
    order = order.to(ids.device(), /*non_blocking=*/true);
    fill = fill.to(ids.device(), /*non_blocking=*/true);

    at::Tensor barred = batch.text_mask.logical_not()
                            .logical_or(ids.eq(special_.cls))
                            .logical_or(ids.eq(special_.pad));
    if (!config_.mask_sep()) barred = barred.logical_or(ids.eq(special_.sep));
    const at::Tensor candidates = length - barred.sum(-1, /*keepdim=*/true);
    const at::Tensor count = at::minimum(
        (candidates.to(at::kDouble) * config_.mask_probability() + 0.5)
            .floor()
            .clamp_min(1)
            .to(at::kLong),
        candidates);
    const at::Tensor positions =
        std::get<1>(order.masked_fill(barred, -1).topk(capacity, -1));

    TextMask mask;
    mask.valid = at::arange(capacity, ids.options()).unsqueeze(0).lt(count);
    mask.targets = ids.gather(1, positions);
    mask.ids = ids.scatter(
        1, positions,
        at::where(mask.valid.logical_and(fill.ge(0)), fill, mask.targets));
    mask.positions = positions.masked_fill(mask.valid.logical_not(), 0);
    return mask;
  }

  // What replaces a token: [MASK], a random ordinary token, or -1: nothing.
  int64_t DrawFill(RandomStream& random) const {
    const double choice = random.Uniform();
    if (choice < 0.8) return special_.mask;
    if (choice >= 0.9) return -1;
    while (true) {
      const int64_t id = random.Below(vocab_size_);
      if (id != special_.pad && id != special_.cls && id != special_.sep &&
          id != special_.mask && id != special_.unk) {
        return id;
      }
    }
  }

  const MlmConfig config_;
  const std::string instance_;
  const SpecialIds special_;
  const int64_t vocab_size_;
  std::shared_ptr<Linear> dense_, decoder_;
  std::shared_ptr<LayerNorm> norm_;
};

}  // namespace

absl::Status ValidateMlm(const MlmConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("text", config.text());
  errors.RequireInstance("fusion", config.fusion());
  errors.Require(config.mask_probability() > 0 && config.mask_probability() < 1,
                 "mask_probability", config.mask_probability(),
                 "a share between 0 and 1, both excluded");
  errors.Require(config.alpha() >= 0 && config.alpha() <= 1, "alpha",
                 config.alpha(), "a share in [0, 1]");
  errors.Require(config.alpha_ramp_steps() >= 0, "alpha_ramp_steps",
                 config.alpha_ramp_steps(), "0 or more");
  return errors.status();
}

Contract MlmContract(const std::string& /*instance*/, const MlmConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kTextMask, 0}, {kMlmLogits, 0}};
  contract.needs = {
      {"text", config.text(), kTokens, 0, false, "its input is masked"},
      {"fusion", config.fusion(), kFused, 0, false,
       "it predicts the masked tokens"}};
  contract.batch_keys = {"image", "text"};
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeMlm(
    const MlmConfig& config, const PluginContext& context) {
  const int64_t dim = context.book->Dim(config.fusion(), kFused);
  if (dim <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("mlm \"", context.instance, "\": the dimension of ",
                     config.fusion(), "/fused is unknown; check fusion"));
  }
  if (context.tokenizer == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("mlm \"", context.instance,
                     "\" needs a tokenizer: the experiment has no `text`"));
  }
  // The special tokens are distinct; one ordinary token must be left.
  if (context.vocab_size < 6) {
    return absl::FailedPreconditionError(absl::StrCat(
        "mlm \"", context.instance, "\": a vocabulary of ", context.vocab_size,
        " holds no ordinary token beside the special ones"));
  }
  return std::make_shared<Mlm>(config, context, dim);
}

}  // namespace semvq
