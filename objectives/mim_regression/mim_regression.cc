#include "objectives/mim_regression/mim_regression.h"

#include <torch/types.h>

#include <algorithm>

#include "core/nn/layers.h"
#include "core/nn/transformer.h"
#include "core/objective/decoding.h"
#include "core/objective/losses.h"
#include "core/objective/mask.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "objectives/mim_regression/config.pb.h"

namespace semvq {
namespace {

constexpr char kMimPrediction[] = "mim_prediction";
// Of variances [MAE] and of norms.
constexpr double kTiny = 1e-6;

// Mean 0 and variance 1 over the last dimension.
at::Tensor Standardise(const at::Tensor& x) {
  const auto [variance, mean] =
      at::var_mean(x, at::IntArrayRef{-1}, /*unbiased=*/true, /*keepdim=*/true);
  return (x - mean) / (variance + kTiny).sqrt();
}

at::Tensor Cosine(const at::Tensor& a, const at::Tensor& b) {
  return (a * b).sum(-1) /
         (a.norm(2, -1).clamp_min(kTiny) * b.norm(2, -1).clamp_min(kTiny));
}

int64_t Heads(const MimRegressionConfig& config, int64_t dim) {
  return config.decoder_heads() > 0 ? config.decoder_heads()
                                    : std::max<int64_t>(1, dim / 64);
}

class MimRegression : public Objective {
 public:
  MimRegression(const MimRegressionConfig& config, const PluginContext& context,
                int64_t dim, int64_t target_dim)
      : config_(config), instance_(context.instance) {
    if (config.decoder_layers() > 0) {
      TransformerOptions options;
      options.dim = dim;
      options.heads = Heads(config, dim);
      decoder_ =
          register_module("decoder", std::make_shared<TransformerDecoder>(
                                         options, config.decoder_layers()));
    }
    head_ = register_module("head", std::make_shared<Linear>(dim, target_dim));
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kImageMask) {
      PatchMaskOptions options;
      options.ratio = config_.mask_ratio();
      options.blockwise = config_.mask() == MimRegressionConfig::BLOCKWISE;
      options.min_block = config_.min_block_patches();
      options.max_aspect = config_.max_block_aspect();
      return DrawPatchMask(forward.batch(), CleanTokens(key.slot, forward).grid,
                           options, forward.seed(), key.slot);
    }
    if (key.view == kMimPrediction) return Predict(key, forward);
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const at::Tensor prediction =
        Upcast(forward.Get<at::Tensor>(ImageKey(instance_, kMimPrediction)));
    const at::Tensor target = Target(forward).to(prediction.scalar_type());
    ObjectiveOutput out;
    out.losses = {{"regression", Loss(prediction, target)}};
    c10::NoGradGuard no_grad;
    out.metrics = {{"cosine", Cosine(prediction, target).mean()}};
    if (config_.loss() != MimRegressionConfig::COSINE) {
      out.metrics.emplace_back("explained_variance",
                               ExplainedVariance(prediction, target));
    }
    return out;
  }

 private:
  const std::string& MaskInstance() const {
    return config_.mask_from().empty() ? instance_ : config_.mask_from();
  }

  // Of the clean image: its features are the target, or (PIXELS) its grid is
  // that of the mask. Nearly every experiment has that pass anyway, for ITC and
  // for the codebook.
  const Tokens& CleanTokens(int slot, Forward& forward) const {
    Variant variant;
    variant.teacher = config_.target() == MimRegressionConfig::TEACHER;
    const bool fixed = config_.target() == MimRegressionConfig::FIXED;
    return forward.Get<Tokens>(ImageKey(
        fixed ? config_.fixed() : config_.image(), kTokens, variant, slot));
  }

  const ImageMask& Mask(int slot, Forward& forward) const {
    return forward.Get<ImageMask>(
        ImageKey(MaskInstance(), kImageMask, {}, slot));
  }

  at::Tensor Predict(const ViewKey& key, Forward& forward) {
    Variant masked = key.variant;
    masked.image_mask = MaskInstance();
    const Tokens& image = forward.Get<Tokens>(
        ImageKey(config_.image(), kTokens, masked, key.slot));
    const at::Tensor values = decoder_ == nullptr
                                  ? image.values
                                  : decoder_->Forward(image.values, image.mask);
    return head_->Forward(GatherPositions(
        values, Mask(key.slot, forward).positions + (image.has_cls ? 1 : 0)));
  }

  // [B, M, D], without gradient.
  at::Tensor Target(Forward& forward) const {
    const at::Tensor& positions = Mask(0, forward).positions;
    at::Tensor target;
    if (config_.target() == MimRegressionConfig::PIXELS) {
      const at::Tensor patches =
          Patchify(forward.batch().images.select(1, 0), config_.patch_size());
      CheckGrid("patch_size makes", patches.size(1), forward);
      target = GatherPositions(patches, positions);
    } else {
      const Tokens& clean = CleanTokens(0, forward);
      CheckGrid("the target", clean.grid.height * clean.grid.width, forward);
      target = GatherPositions(Upcast(clean.values),
                               positions + (clean.has_cls ? 1 : 0));
    }
    target = target.detach();
    return config_.normalize() ? Standardise(target) : target;
  }

  void CheckGrid(const char* what, int64_t patches, Forward& forward) const {
    const int64_t own = Mask(0, forward).mask.size(1);
    TORCH_CHECK(patches == own, "mim_regression \"", instance_,
                "\": ", MaskInstance(), " masks ", own, " patches an image, ",
                what, " ", patches,
                "; both must have the image encoder's grid");
  }

  at::Tensor Loss(const at::Tensor& prediction,
                  const at::Tensor& target) const {
    switch (config_.loss()) {
      case MimRegressionConfig::MSE:
        return at::mse_loss(prediction, target);
      case MimRegressionConfig::SMOOTH_L1:
        return at::smooth_l1_loss(prediction, target, at::Reduction::Mean,
                                  config_.smooth_l1_beta());
      case MimRegressionConfig::L1:
        return at::l1_loss(prediction, target);
      case MimRegressionConfig::COSINE:
        break;
    }
    return 1 - Cosine(prediction, target).mean();
  }

  const MimRegressionConfig config_;
  const std::string instance_;
  std::shared_ptr<TransformerDecoder> decoder_;
  std::shared_ptr<Linear> head_;
};

}  // namespace

absl::Status ValidateMimRegression(const MimRegressionConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("image", config.image());
  const bool fixed = config.target() == MimRegressionConfig::FIXED;
  if (fixed) {
    errors.RequireInstance("fixed", config.fixed());
  } else {
    errors.Require(config.fixed().empty(), "fixed", config.fixed(),
                   "nothing without target: FIXED");
  }
  errors.Require(config.smooth_l1_beta() > 0 && config.smooth_l1_beta() < 1e9,
                 "smooth_l1_beta", config.smooth_l1_beta(),
                 "a positive number");
  errors.Require(config.mask_ratio() > 0 && config.mask_ratio() < 1,
                 "mask_ratio", config.mask_ratio(),
                 "a share between 0 and 1, both excluded");
  errors.Require(config.min_block_patches() > 0, "min_block_patches",
                 config.min_block_patches(), "a positive number");
  errors.Require(config.max_block_aspect() >= 1, "max_block_aspect",
                 config.max_block_aspect(), "at least 1");
  errors.Require(config.patch_size() > 0 && config.patch_size() <= 4096,
                 "patch_size", config.patch_size(), "1 to 4096");
  errors.Require(
      config.decoder_layers() >= 0 && config.decoder_layers() <= 1000,
      "decoder_layers", config.decoder_layers(), "0 to 1000");
  errors.Require(config.decoder_heads() >= 0, "decoder_heads",
                 config.decoder_heads(), "0 or more");
  return errors.status();
}

Contract MimRegressionContract(const std::string& /*instance*/,
                               const MimRegressionConfig& config,
                               const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kMimPrediction, 0}};
  contract.needs = {
      {"image", config.image(), kTokens, 0, false, "its patches are masked"}};
  if (config.mask_from().empty()) {
    contract.provides.push_back({kImageMask, 0});
  } else {
    contract.needs.push_back({"mask_from", config.mask_from(), kImageMask, 0,
                              false, "its mask is used"});
  }
  if (config.target() == MimRegressionConfig::FIXED) {
    NeededView fixed{
        "fixed", config.fixed(),
        kTokens, 0,
        false,   "a target that is trained as well would collapse"};
    fixed.needs_fixed = true;
    contract.needs.push_back(fixed);
  }
  contract.batch_keys = {"image"};
  contract.needs_teacher = config.target() == MimRegressionConfig::TEACHER;
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeMimRegression(
    const MimRegressionConfig& config, const PluginContext& context) {
  const auto error = [&context](auto... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("mim_regression \"", context.instance, "\": ", parts...));
  };
  const int64_t dim = context.book->Dim(config.image(), kTokens);
  if (dim <= 0) {
    return error("the dimension of ", config.image(),
                 "/tokens is unknown; check image");
  }
  if (config.decoder_layers() > 0 && dim % Heads(config, dim) != 0) {
    return error(Heads(config, dim), " heads do not divide the dimension ", dim,
                 "; set decoder_heads");
  }
  int64_t target_dim = dim;
  if (config.target() == MimRegressionConfig::PIXELS) {
    if (context.book->image_size % config.patch_size() != 0) {
      return error("patch_size ", config.patch_size(),
                   " does not divide the image size ", context.book->image_size,
                   "; set it to the image encoder's patch size");
    }
    target_dim = 3 * config.patch_size() * config.patch_size();
  } else if (config.target() == MimRegressionConfig::FIXED) {
    target_dim = context.book->Dim(config.fixed(), kTokens);
    if (target_dim <= 0) {
      return error("the dimension of ", config.fixed(),
                   "/tokens is unknown; check fixed");
    }
  }
  return std::make_shared<MimRegression>(config, context, dim, target_dim);
}

}  // namespace semvq
