#include "objectives/itm/itm.h"

#include <torch/types.h>

#include <limits>
#include <vector>

#include "core/distributed/gather_rows.h"
#include "core/forward/rank_views.h"
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
    at::Tensor image_ids = ImageIdKeys(batch);
    at::Tensor text_ids = image_ids.index_select(0, batch.text_to_image);
    Communicator* group = forward.group();
    if (forward.Has(OthersKey(Variant{}))) {
      const auto& others = forward.Get<OtherRows>(OthersKey(Variant{}));
      text_ids = at::cat({text_ids, FetchRows(text_ids, others.texts, group)});
      image_ids =
          at::cat({image_ids, FetchRows(image_ids, others.images, group)});
    }
    const at::Tensor same =
        text_ids.index_select(0, pairing.text_index)
            .eq(image_ids.index_select(0, pairing.image_index));
    at::Tensor labels = at::zeros({pairs}, same.options().dtype(at::kLong));
    labels.narrow(0, 0, positives).fill_(1);
    // Where there was no negative to draw, the pair is of one image: no loss.
    labels.masked_fill_(same.logical_and(labels.eq(0)), -1);

    const at::Tensor count = CountTargets(labels, group);
    ObjectiveOutput out;
    out.losses = {{"match", CrossEntropyAt(logits, labels, {}, 0.0, count)}};
    out.metrics = {{"accuracy", Top1(logits, labels, count)},
                   {"negative_accuracy",
                    Top1(logits.narrow(0, positives, pairs - positives),
                         labels.narrow(0, positives, pairs - positives))}};
    return out;
  }

 private:
  ViewKey OthersKey(const Variant& variant) const {
    return {instance_, kOtherRows, variant, 0, ""};
  }

  Pairing MakePairing(const ViewKey& key, Forward& forward) {
    c10::NoGradGuard no_grad;
    const Batch& batch = forward.batch();
    // Of the candidates: this rank's, or those of all ranks.
    Communicator* group =
        config_.negatives() == ItmConfig::GLOBAL ? forward.group() : nullptr;
    RankSimilarity similarity;
    if (group != nullptr) {
      similarity = forward.Get<RankSimilarity>(
          {config_.contrastive(), kRankSimilarity, key.variant, 0, ""});
    } else {
      similarity.images = forward.Get<at::Tensor>(
          {config_.contrastive(), kSimilarity, key.variant, 0, ""});
      similarity.texts = similarity.images.t();
    }
    const double hardness = LinearRamp(
        config_.hardness(), config_.hardness_ramp_steps(), forward.step());
    const at::Tensor image_ids = ImageIdKeys(batch);
    const at::Tensor text_ids = image_ids.index_select(0, batch.text_to_image);
    const std::vector<uint64_t> images = ImageDrawKeys(batch);
    const std::vector<uint64_t> texts = TextDrawKeys(batch);
    const at::Tensor negative_images = DrawColumns(
        hardness * similarity.texts,
        text_ids.unsqueeze(1).eq(GatherRows(image_ids, group).unsqueeze(0)),
        KeyedGumbel(forward.seed(), "itm image", texts,
                    GatherKeys(images, group)));
    const at::Tensor negative_texts = DrawColumns(
        hardness * similarity.images,
        image_ids.unsqueeze(1).eq(GatherRows(text_ids, group).unsqueeze(0)),
        KeyedGumbel(forward.seed(), "itm text", images,
                    GatherKeys(texts, group)));

    const int64_t num_texts = batch.num_texts();
    const auto num_images = static_cast<int64_t>(batch.image_ids.size());
    const auto options = batch.text_to_image.options();
    const at::Tensor all_texts = at::arange(num_texts, options);
    const at::Tensor all_images = at::arange(num_images, options);
    Pairing out;
    if (group == nullptr) {
      out.text_index = at::cat({all_texts, all_texts, negative_texts});
      out.image_index =
          at::cat({batch.text_to_image, negative_images, all_images});
      return out;
    }
    forward.Set(OthersKey(key.variant),
                OtherRows{negative_texts, negative_images});
    out.text_index = at::cat({all_texts, all_texts, all_images + num_texts});
    out.image_index =
        at::cat({batch.text_to_image, all_texts + num_images, all_images});
    return out;
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
  if (config.negatives() == ItmConfig::GLOBAL) {
    contract.needs.push_back({"contrastive", config.contrastive(),
                              kRankSimilarity, 0, false,
                              "it draws from the batches of all ranks"});
  }
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
