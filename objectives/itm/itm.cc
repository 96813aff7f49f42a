#include "objectives/itm/itm.h"

#include <torch/types.h>

#include <limits>
#include <vector>

#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "objectives/itm/config.pb.h"

namespace semvq {
namespace {

// A draw per row from softmax(scores) over the columns that are not excluded.
at::Tensor DrawColumns(const at::Tensor& scores, const at::Tensor& excluded,
                       const at::Tensor& gumbel) {
  return (scores.masked_fill(excluded,
                             -std::numeric_limits<double>::infinity()) +
          gumbel.to(scores.device(), /*non_blocking=*/true))
      .argmax(-1);
}

class Itm : public Objective {
 public:
  Itm(const ItmConfig& config, const PluginContext& context, int64_t dim)
      : config_(config), instance_(context.instance) {
    head_ = register_module("head", std::make_shared<Linear>(dim, 2));
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kPairing) return MakePairing(key, forward);
    if (key.view == kMatchLogits) {
      ViewKey fused = key;
      fused.instance = config_.fusion();
      fused.view = kFused;
      return head_->Forward(forward.Get<Tokens>(fused).values.select(1, 0));
    }
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const Pairing& pairing =
        forward.Get<Pairing>({instance_, kPairing, Variant{}, 0, ""});
    const at::Tensor logits = Upcast(forward.Get<at::Tensor>(
        FusedKey(instance_, kMatchLogits, Variant{}, instance_)));

    const Batch& batch = forward.batch();
    const int64_t positives = batch.num_texts();
    const int64_t pairs = pairing.text_index.size(0);
    const at::Tensor ids = ImageIdKeys(batch);
    const at::Tensor same =
        ids.index_select(
               0, batch.text_to_image.index_select(0, pairing.text_index))
            .eq(ids.index_select(0, pairing.image_index));
    at::Tensor labels = at::zeros({pairs}, same.options().dtype(at::kLong));
    labels.narrow(0, 0, positives).fill_(1);
    // Where there was no negative to draw, the pair is of one image: no loss.
    labels.masked_fill_(same.logical_and(labels.eq(0)), -1);

    ObjectiveOutput out;
    out.losses = {{"match", CrossEntropyAt(logits, labels)}};
    out.metrics = {{"accuracy", Top1(logits, labels)},
                   {"negative_accuracy",
                    Top1(logits.narrow(0, positives, pairs - positives),
                         labels.narrow(0, positives, pairs - positives))}};
    return out;
  }

 private:
  Pairing MakePairing(const ViewKey& key, Forward& forward) {
    c10::NoGradGuard no_grad;
    const Batch& batch = forward.batch();
    const at::Tensor similarity =
        LinearRamp(config_.hardness(), config_.hardness_ramp_steps(),
                   forward.step()) *
        forward.Get<at::Tensor>(
            {config_.contrastive(), kSimilarity, key.variant, 0, ""});
    const at::Tensor ids = ImageIdKeys(batch);
    const at::Tensor same =
        ids.unsqueeze(1).eq(ids.index_select(0, batch.text_to_image));
    const std::vector<uint64_t> images = ImageDrawKeys(batch);
    const std::vector<uint64_t> texts = TextDrawKeys(batch);
    const at::Tensor negative_images =
        DrawColumns(similarity.t(), same.t(),
                    KeyedGumbel(forward.seed(), "itm image", texts, images));
    const at::Tensor negative_texts =
        DrawColumns(similarity, same,
                    KeyedGumbel(forward.seed(), "itm text", images, texts));

    const at::Tensor all_texts =
        at::arange(batch.num_texts(), batch.text_to_image.options());
    const at::Tensor all_images =
        at::arange(static_cast<int64_t>(batch.image_ids.size()),
                   batch.text_to_image.options());
    return {at::cat({all_texts, all_texts, negative_texts}),
            at::cat({batch.text_to_image, negative_images, all_images})};
  }

  const ItmConfig config_;
  const std::string instance_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

absl::Status ValidateItm(const ItmConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("fusion", config.fusion());
  errors.RequireInstance("contrastive", config.contrastive());
  errors.Require(config.hardness() >= 0, "hardness", config.hardness(),
                 "0 or more");
  errors.Require(config.hardness_ramp_steps() >= 0, "hardness_ramp_steps",
                 config.hardness_ramp_steps(), "0 or more");
  return errors.status();
}

Contract ItmContract(const std::string& /*instance*/, const ItmConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kPairing, 0}, {kMatchLogits, 2}};
  contract.needs = {
      {"fusion", config.fusion(), kFused, 0, false, "it reads the fused [CLS]"},
      {"contrastive", config.contrastive(), kSimilarity, 0, false,
       "it draws hard negatives by similarity"}};
  contract.batch_keys = {"image", "text"};
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeItm(
    const ItmConfig& config, const PluginContext& context) {
  const int64_t dim = context.book->Dim(config.fusion(), kFused);
  if (dim <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("itm \"", context.instance, "\": the dimension of ",
                     config.fusion(), "/fused is unknown; check fusion"));
  }
  return std::make_shared<Itm>(config, context, dim);
}

}  // namespace semvq
