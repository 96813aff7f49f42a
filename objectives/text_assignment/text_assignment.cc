#include "objectives/text_assignment/text_assignment.h"

#include <torch/types.h>

#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/distributed/gather_rows.h"
#include "core/forward/rank_views.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "core/random/stream.h"
#include "objectives/text_assignment/config.pb.h"

namespace semvq {
namespace {

// The labels [ALBEF].
enum Side : int64_t { kFirst = 0, kSecond = 1, kNeither = 2, kNone = -1 };

// The two images of each text, and which of them it describes.
struct Assignment {
  Pairing pairing;
  at::Tensor labels;  // int64 [T]; kNone: no loss.
};
constexpr char kAssignment[] = "assignment";

class TextAssignment : public Objective {
 public:
  TextAssignment(const TextAssignmentConfig& config,
                 const PluginContext& context, int64_t dim)
      : config_(config), instance_(context.instance) {
    head_ = register_module("head", std::make_shared<Linear>(dim, 3));
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kAssignment) return Assign(forward);
    if (key.view == kPairing) return Drawn(forward).pairing;
    if (key.view == kAssignmentLogits) {
      const ViewKey fused =
          FusedKey(config_.fusion(), kFused, key.variant, instance_);
      return head_->Forward(forward.Get<Tokens>(fused).values.select(1, 0));
    }
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const at::Tensor& labels = Drawn(forward).labels;
    const at::Tensor logits =
        Upcast(forward.Get<at::Tensor>(FusedKey(instance_, kAssignmentLogits)));
    const at::Tensor count = CountTargets(labels, forward.group());
    ObjectiveOutput out;
    out.losses = {
        {"assignment", CrossEntropyAt(logits, labels, {}, 0.0, count)}};
    out.metrics = {{"accuracy", Top1(logits, labels, count)}};
    return out;
  }

 private:
  const Assignment& Drawn(Forward& forward) {
    return forward.Get<Assignment>({instance_, kAssignment, Variant{}, 0, ""});
  }

  // Log-odds [B, `candidates`] of candidate j when another image than i is
  // drawn.
  at::Tensor Scores(int64_t candidates, Communicator* group, Forward& forward) {
    const int64_t images = forward.batch().num_images();
    const auto options = forward.batch().text_to_image.options();
    if (config_.contrastive().empty()) {
      return at::zeros({images, candidates}, options.dtype(at::kDouble));
    }
    const at::Tensor& embedding = forward.Get<at::Tensor>(
        ImageKey(config_.contrastive(), kImageEmbedding));
    NoAutocast no_autocast;
    return at::matmul(embedding, GatherRows(embedding, group).t()) /
           config_.temperature();
  }

  Assignment Assign(Forward& forward) {
    c10::NoGradGuard no_grad;
    const Batch& batch = forward.batch();
    const at::Tensor& own = batch.text_to_image;
    // Of the candidates: this rank's images, or those of all ranks.
    Communicator* group = config_.negatives() == TextAssignmentConfig::GLOBAL
                              ? forward.group()
                              : nullptr;
    const at::Tensor ids = ImageIdKeys(batch);
    const at::Tensor candidates = GatherRows(ids, group);
    const at::Tensor same =
        ids.index_select(0, own).unsqueeze(1).eq(candidates.unsqueeze(0));
    const at::Tensor noise =
        KeyedGumbel(forward.seed(), "text assignment", TextDrawKeys(batch),
                    GatherKeys(ImageDrawKeys(batch), group))
            .to(own.device(), /*non_blocking=*/true);
    // The two largest of scores plus Gumbel noise are two draws without
    // replacement.
    constexpr double kNever = -std::numeric_limits<double>::infinity();
    const at::Tensor perturbed =
        (Scores(candidates.size(0), group, forward).index_select(0, own) +
         noise)
            .masked_fill(same, kNever);
    // The column added is drawn where a batch has no second other image.
    const auto [best, columns] =
        at::constant_pad_nd(perturbed, {0, 1}, kNever).topk(2, 1);
    at::Tensor others = columns.clamp_max(candidates.size(0) - 1);
    const at::Tensor enough = best.isfinite();
    Assignment out;
    if (group != nullptr) {
      // The drawn images of all ranks stand after this rank's.
      forward.Set({instance_, kOtherRows, Variant{}, 0, ""},
                  OtherRows{{}, others.flatten()});
      others = batch.num_images() +
               at::arange(others.numel(), others.options()).view_as(others);
    }
    const at::Tensor other = others.select(1, 0);

    const at::Tensor labels =
        DrawLabels(forward).to(own.device(), /*non_blocking=*/true);
    const at::Tensor first = labels.eq(kFirst), neither = labels.eq(kNeither);
    out.pairing.text_index = at::arange(batch.num_texts(), own.options());
    out.pairing.image_index = own;
    out.pairing.slots = {
        at::where(first, own, other),
        at::where(neither, others.select(1, 1), at::where(first, other, own))};
    const at::Tensor possible =
        at::where(neither, enough.select(1, 1), enough.select(1, 0));
    out.labels = labels.masked_fill(possible.logical_not(), kNone);
    return out;
  }

  // int64 [T], on the host.
  at::Tensor DrawLabels(Forward& forward) const {
    const Batch& batch = forward.batch();
    at::Tensor labels = at::empty({batch.num_texts()}, at::kLong);
    int64_t* out = labels.data_ptr<int64_t>();
    for (const TextPlace& place : TextPlaces(batch)) {
      RandomStream random(forward.seed(), "text assignment side",
                          batch.sample_numbers[place.image], place.index);
      if (random.Bernoulli(config_.neither_share())) {
        *out++ = kNeither;
      } else {
        *out++ = random.Bernoulli(0.5) ? kFirst : kSecond;
      }
    }
    return labels;
  }

  const TextAssignmentConfig config_;
  const std::string instance_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

absl::Status ValidateTextAssignment(const TextAssignmentConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("fusion", config.fusion());
  errors.Require(config.neither_share() >= 0 && config.neither_share() <= 1,
                 "neither_share", config.neither_share(), "a share in [0, 1]");
  // Below, cosines would leave float32's range.
  errors.Require(config.temperature() >= 1e-6, "temperature",
                 config.temperature(), "at least 1e-6");
  return errors.status();
}

Contract TextAssignmentContract(const std::string& /*instance*/,
                                const TextAssignmentConfig& config,
                                const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kPairing, 0}, {kAssignment, 0}, {kAssignmentLogits, 3}};
  contract.needs = {{"fusion", config.fusion(), kFused, 0, false,
                     "it reads the fused [CLS]"}};
  if (!config.contrastive().empty()) {
    contract.needs.push_back(
        {"contrastive", config.contrastive(), kImageEmbedding, 0, false,
         "it draws other images by their similarity; leave contrastive empty "
         "to draw them evenly"});
  }
  contract.batch_keys = {"image", "text"};
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeTextAssignment(
    const TextAssignmentConfig& config, const PluginContext& context) {
  const int64_t dim = context.book->Dim(config.fusion(), kFused);
  if (dim <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "text_assignment \"", context.instance, "\": the dimension of ",
        config.fusion(), "/fused is unknown; check fusion"));
  }
  return std::make_shared<TextAssignment>(config, context, dim);
}

}  // namespace semvq
