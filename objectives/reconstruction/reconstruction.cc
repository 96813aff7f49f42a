#include "objectives/reconstruction/reconstruction.h"

#include <torch/types.h>

#include <algorithm>

#include "core/nn/token_decoder.h"
#include "core/objective/decoding.h"
#include "core/objective/losses.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "objectives/reconstruction/config.pb.h"

namespace semvq {
namespace {

constexpr char kPatches[] = "reconstruction_patches";

// Mean and deviation of every patch, [B, N, 1].
struct PatchScale {
  explicit PatchScale(const at::Tensor& patches) {
    at::Tensor variance;
    std::tie(variance, mean) = at::var_mean(patches, at::IntArrayRef{-1},
                                            /*unbiased=*/true,
                                            /*keepdim=*/true);
    deviation = (variance + 1e-6).sqrt();
  }
  at::Tensor mean, deviation;
};

class Reconstruction : public Objective {
 public:
  Reconstruction(const ReconstructionConfig& config,
                 const PluginContext& context,
                 const TokenDecoderOptions& decoder)
      : config_(config), instance_(context.instance), grid_(decoder.grid) {
    decoder_ =
        register_module("decoder", std::make_shared<TokenDecoder>(decoder));
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kPatches) return Decode(key, forward);
    if (key.view == kReconstruction) {
      at::Tensor patches = forward.Get<at::Tensor>(
          ImageKey(instance_, kPatches, key.variant, key.slot));
      if (config_.normalize_patches()) {
        const PatchScale scale(Target(key.slot, forward));
        patches = patches * scale.deviation + scale.mean;
      }
      return Unpatchify(patches, grid_, config_.patch_size());
    }
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const at::Tensor prediction =
        Upcast(forward.Get<at::Tensor>(ImageKey(instance_, kPatches)));
    at::Tensor target = Target(0, forward);
    if (config_.normalize_patches()) {
      const PatchScale scale(target);
      target = (target - scale.mean) / scale.deviation;
    }
    const bool squared = config_.loss() == ReconstructionConfig::MSE;
    ObjectiveOutput out;
    out.losses = {{"pixels", squared ? at::mse_loss(prediction, target)
                                     : at::l1_loss(prediction, target)}};
    out.metrics = {
        {"explained_variance", ExplainedVariance(prediction, target)}};
    return out;
  }

 private:
  at::Tensor Target(int slot, Forward& forward) const {
    return Patchify(forward.batch().images.select(1, slot),
                    config_.patch_size());
  }

  at::Tensor Decode(const ViewKey& key, Forward& forward) {
    const at::Tensor& tokens =
        forward
            .Get<QuantizedTokens>(ImageKey(config_.quantizer(), kQuantized,
                                           key.variant, key.slot))
            .tokens;
    if (!config_.condition_on_text()) return decoder_->Forward(tokens, nullptr);
    const CrossMemory text =
        FirstTextMemory(config_.text(), key.variant.teacher,
                        config_.stop_text_gradient(), forward);
    return decoder_->Forward(tokens, &text);
  }

  const ReconstructionConfig config_;
  const std::string instance_;
  const Grid grid_;
  std::shared_ptr<TokenDecoder> decoder_;
};

int64_t Heads(const ReconstructionConfig& config) {
  return config.heads() > 0 ? config.heads()
                            : std::max<int64_t>(1, config.dim() / 64);
}

}  // namespace

absl::Status ValidateReconstruction(const ReconstructionConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("quantizer", config.quantizer());
  errors.RequireInstance("image", config.image());
  if (config.condition_on_text()) {
    errors.RequireInstance("text", config.text());
  }
  errors.Require(config.patch_size() > 0, "patch_size", config.patch_size(),
                 "a positive number");
  errors.Require(config.dim() > 0, "dim", config.dim(), "a positive number");
  errors.Require(config.depth() > 0 && config.depth() <= 1000, "depth",
                 config.depth(), "1 to 1000");
  errors.Require(config.heads() >= 0, "heads", config.heads(), "0 or more");
  errors.Require(config.dim() % Heads(config) == 0, "heads", Heads(config),
                 absl::StrCat("a divisor of dim (", config.dim(), ")"));
  return errors.status();
}

Contract ReconstructionContract(const std::string& /*instance*/,
                                const ReconstructionConfig& config,
                                const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kReconstruction, 0}, {kPatches, 0}};
  contract.needs = {{"quantizer", config.quantizer(), kQuantized, 0, false,
                     "it decodes quantised tokens"},
                    {"image", config.image(), kTokens, 0, false,
                     "the decoded tokens have its dimension"}};
  contract.batch_keys = {"image"};
  if (config.condition_on_text()) {
    contract.needs.push_back(
        {"text", config.text(), kTokens, 0, false, "it reads the caption"});
    contract.batch_keys.push_back("text");
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeReconstruction(
    const ReconstructionConfig& config, const PluginContext& context) {
  const auto error = [&context](auto... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("reconstruction \"", context.instance, "\": ", parts...));
  };
  const int64_t token_dim = context.book->Dim(config.image(), kTokens);
  if (token_dim <= 0) {
    return error("the dimension of ", config.image(),
                 "/tokens is unknown; check image");
  }
  const int64_t side = context.book->image_size / config.patch_size();
  if (side <= 0 || side * config.patch_size() != context.book->image_size) {
    return error("patch_size ", config.patch_size(),
                 " does not divide the image size ", context.book->image_size,
                 "; set it to the image encoder's patch size");
  }
  TokenDecoderOptions decoder;
  decoder.token_dim = token_dim;
  decoder.out = 3 * config.patch_size() * config.patch_size();
  decoder.grid = {side, side};
  decoder.dim = config.dim();
  decoder.depth = config.depth();
  decoder.heads = Heads(config);
  if (config.condition_on_text()) {
    decoder.text_dim = context.book->Dim(config.text(), kTokens);
    if (decoder.text_dim <= 0) {
      return error("the dimension of ", config.text(),
                   "/tokens is unknown; check text");
    }
  }
  return std::make_shared<Reconstruction>(config, context, decoder);
}

}  // namespace semvq
