#include "encoders/vit/vit.h"

#include <torch/types.h>

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/layers.h"
#include "core/nn/position.h"
#include "core/nn/transformer.h"
#include "core/plugin/encoder.h"
#include "core/plugin/field_errors.h"

namespace semvq {
namespace {

// A convolution's weights, shaped as in PyTorch: [out, in, side, side].
class ConvWeights : public torch::nn::Module {
 public:
  ConvWeights(int64_t in, int64_t out, int64_t side, double std) {
    weight = register_parameter(
        "weight", TruncatedNormal(at::empty({out, in, side, side}), std));
    bias = register_parameter("bias", at::zeros({out}));
  }

  at::Tensor weight, bias;
};

// [B, C, h*p, w*p] to [B, h*w, C*p*p]: a patch's values in the order of a
// convolution's weight, [C, p, p].
at::Tensor Patchify(const at::Tensor& x, int64_t p) {
  if (p == 1) return x.flatten(2).transpose(1, 2);
  return x.unflatten(3, {x.size(3) / p, p})
      .unflatten(2, {x.size(2) / p, p})
      .permute({0, 2, 4, 1, 3, 5})
      .flatten(3)
      .flatten(1, 2);
}

// The same of x whose channels lie innermost, to [B, h*w, p*p*C], where they
// stay innermost: so does the gradient, and what comes before need not reorder.
at::Tensor PatchifyChannelsLast(const at::Tensor& x, int64_t p) {
  return x.permute({0, 2, 3, 1})
      .unflatten(2, {x.size(3) / p, p})
      .unflatten(1, {x.size(2) / p, p})
      .transpose(2, 3)
      .flatten(3)
      .flatten(1, 2);
}

// [side * side, dim], row by row: sine and cosine of the column, then of the
// row, at dim / 4 wavelengths from 2 pi to 20000 pi.
at::Tensor SinCosPositions(int64_t side, int64_t dim) {
  const int64_t waves = dim / 4;
  const at::Tensor rate =
      at::pow(10000.0, -at::arange(waves, at::kDouble) / waves);
  const at::Tensor angle =
      at::arange(side, at::kDouble).unsqueeze(1) * rate;  // [side, waves]
  const at::Tensor column = angle.unsqueeze(0).expand({side, side, waves});
  const at::Tensor row = angle.unsqueeze(1).expand({side, side, waves});
  return at::cat({column.sin(), column.cos(), row.sin(), row.cos()}, 2)
      .flatten(0, 1)
      .to(at::kFloat);
}

// Pixels to patch vectors: the optional stem, then one GEMM.
class PatchEmbed : public torch::nn::Module {
 public:
  explicit PatchEmbed(const VitConfig& config)
      : patch_size_(config.patch_size()), side_(config.patch_size()) {
    int64_t channels = 3;
    if (config.conv_stem_dims_size() > 0) {
      stem_ = std::make_shared<torch::nn::Module>();
      for (int64_t out : config.conv_stem_dims()) {
        // Keeps the variance through a rectifier [He et al. 2015].
        convs_.push_back(stem_->register_module(
            absl::StrCat(convs_.size()),
            std::make_shared<ConvWeights>(channels, out, 3,
                                          std::sqrt(2.0 / (9 * channels)))));
        channels = out;
        side_ /= 2;
      }
      register_module("stem", stem_);
    }
    proj_ = register_module("proj", std::make_shared<ConvWeights>(
                                        channels, config.dim(), side_, 0.02));
  }

  // pixels [B, 3, H, W], hidden: bool [B, N] or undefined; to [B, N, dim].
  at::Tensor Forward(at::Tensor x, const at::Tensor& hidden) const {
    if (convs_.empty()) {
      return LinearOp(Patchify(x, side_), proj_->weight.flatten(1),
                      proj_->bias);
    }
    if (hidden.defined()) x = Hide(x, hidden);
    x = x.contiguous(at::MemoryFormat::ChannelsLast);
    for (const auto& conv : convs_)
      x = at::gelu(at::conv2d(x, conv->weight, conv->bias, {2, 2}, {1, 1}));
    return LinearOp(PatchifyChannelsLast(x, side_),
                    proj_->weight.permute({0, 2, 3, 1}).flatten(1),
                    proj_->bias);
  }

 private:
  at::Tensor Hide(const at::Tensor& pixels, const at::Tensor& hidden) const {
    const int64_t height = pixels.size(2) / patch_size_;
    const int64_t width = pixels.size(3) / patch_size_;
    return pixels.unflatten(3, {width, patch_size_})
        .unflatten(2, {height, patch_size_})
        .masked_fill(hidden.view({-1, 1, height, 1, width, 1}), 0.0)
        .flatten(4)
        .flatten(2, 3);
  }

  int64_t patch_size_;
  int64_t side_;  // Of what is left of a patch after the stem.
  std::shared_ptr<torch::nn::Module> stem_;
  std::vector<std::shared_ptr<ConvWeights>> convs_;
  std::shared_ptr<ConvWeights> proj_;
};

class Vit : public ImageEncoder {
 public:
  explicit Vit(const VitConfig& config)
      : dim_(config.dim()),
        patch_size_(config.patch_size()),
        side_(config.image_size() / config.patch_size()),
        dropout_(config.dropout()) {
    patch_embed_ =
        register_module("patch_embed", std::make_shared<PatchEmbed>(config));
    cls_token_ = register_parameter("cls_token",
                                    TruncatedNormal(at::empty({1, 1, dim_})));
    mask_token_ = register_parameter("mask_token",
                                     TruncatedNormal(at::empty({1, 1, dim_})));
    // A parameter of its own, not a PositionEmbedding: the name is timm's.
    if (config.absolute_positions()) {
      pos_embed_ = register_parameter(
          "pos_embed",
          TruncatedNormal(at::empty({1, 1 + side_ * side_, dim_})));
      if (config.position_init() == VitConfig::SINCOS) {
        c10::NoGradGuard no_grad;
        pos_embed_.zero_()
            .narrow(1, 1, side_ * side_)
            .copy_(config.position_scale() * SinCosPositions(side_, dim_));
      }
    }
    RegisterRelativePositions(config);
    TransformerOptions options;
    options.dim = dim_;
    options.heads = config.heads();
    options.hidden = std::llround(config.mlp_ratio() * dim_);
    options.qkv_bias = config.qkv_bias();
    options.eps = config.layer_norm_eps();
    options.dropout = config.dropout();
    options.attention_dropout = config.attention_dropout();
    options.drop_path = config.drop_path();
    options.layer_scale = config.layer_scale();
    options.recompute = config.activation_checkpointing();
    blocks_ = register_module(
        "blocks", std::make_shared<BlockStack>(options, config.depth()));
    norm_ =
        register_module("norm", std::make_shared<LayerNorm>(dim_, options.eps));
  }

  Tokens Encode(const ImageInput& input) override {
    const at::Tensor& pixels = input.pixels;
    TORCH_CHECK(pixels.dim() == 4 && pixels.size(1) == 3,
                "vit: images must be [B, 3, H, W], got ", pixels.sizes());
    TORCH_CHECK(
        pixels.size(2) % patch_size_ == 0 && pixels.size(3) % patch_size_ == 0,
        "vit: images of ", pixels.size(2), " x ", pixels.size(3),
        " pixels are not whole patches of ", patch_size_);
    const Grid grid{pixels.size(2) / patch_size_, pixels.size(3) / patch_size_};
    const int64_t batch = pixels.size(0);
    const at::Tensor& hidden = input.patch_mask;
    TORCH_CHECK(
        !hidden.defined() || (hidden.dim() == 2 && hidden.size(0) == batch &&
                              hidden.size(1) == grid.height * grid.width),
        "vit: patch mask ", hidden.sizes(), " does not fit ", batch,
        " images of ", grid.height, " x ", grid.width, " patches");

    at::Tensor x = patch_embed_->Forward(pixels, hidden);
    if (hidden.defined()) {
      x = at::where(hidden.unsqueeze(-1), mask_token_.to(x.scalar_type()), x);
    }
    x = at::cat({cls_token_.expand({batch, 1, dim_}).to(x.scalar_type()), x},
                1);
    if (pos_embed_.defined())
      x = x + ResizePositions(pos_embed_, {side_, side_}, grid, 1);
    x = Dropout(x, dropout_, is_training());
    std::vector<at::Tensor> biases;
    for (const auto& bias : biases_) biases.push_back(bias->Forward(grid));

    Tokens tokens;
    tokens.values = norm_->Forward(blocks_->Forward(x, {}, {}, biases));
    tokens.grid = grid;
    tokens.has_cls = true;
    return tokens;
  }

  int64_t dim() const override { return dim_; }

 private:
  void RegisterRelativePositions(const VitConfig& config) {
    const Grid grid{side_, side_};
    switch (config.relative_positions()) {
      case VitConfig::NONE:
        return;
      case VitConfig::SHARED:
        biases_.push_back(register_module(
            "rel_pos_bias",
            std::make_shared<RelativePositionBias>(grid, config.heads())));
        return;
      case VitConfig::PER_LAYER:
        auto layers = std::make_shared<torch::nn::Module>();
        for (int i = 0; i < config.depth(); ++i) {
          biases_.push_back(layers->register_module(
              absl::StrCat(i),
              std::make_shared<RelativePositionBias>(grid, config.heads())));
        }
        register_module("rel_pos_bias", layers);
    }
  }

  int64_t dim_, patch_size_, side_;
  double dropout_;
  std::shared_ptr<PatchEmbed> patch_embed_;
  at::Tensor cls_token_, mask_token_, pos_embed_;
  // None, one for all blocks, or one each.
  std::vector<std::shared_ptr<RelativePositionBias>> biases_;
  std::shared_ptr<BlockStack> blocks_;
  std::shared_ptr<LayerNorm> norm_;
};

}  // namespace

absl::Status ValidateVit(const VitConfig& config) {
  FieldErrors errors;
  errors.RequirePositive("patch_size", config.patch_size());
  errors.RequirePositive("dim", config.dim());
  errors.RequirePositive("depth", config.depth());
  // So many are built one by one; a typing error must not take all memory.
  errors.Require(config.depth() <= 1000, "depth", config.depth(),
                 "at most 1000");
  errors.RequirePositive("heads", config.heads());
  errors.RequireDivisor("heads", config.heads(), "dim", config.dim());
  errors.RequirePositive("mlp_ratio", config.mlp_ratio());
  errors.RequirePositive("layer_norm_eps", config.layer_norm_eps());
  errors.RequirePositive("image_size", config.image_size());
  errors.Require(
      config.patch_size() <= 0 || config.image_size() <= 0 ||
          config.image_size() % config.patch_size() == 0,
      "image_size", config.image_size(),
      absl::StrCat("a multiple of patch_size ", config.patch_size()));
  errors.RequireProbability("dropout", config.dropout());
  errors.RequireProbability("attention_dropout", config.attention_dropout());
  errors.RequireProbability("drop_path", config.drop_path());
  errors.RequireNotNegative("layer_scale", config.layer_scale());
  errors.Require(config.absolute_positions() ||
                     config.relative_positions() != VitConfig::NONE,
                 "absolute_positions", "false",
                 "true where there are no relative_positions, or the order of "
                 "the patches would be lost");
  errors.Require(
      config.position_init() != VitConfig::SINCOS || config.dim() % 4 == 0,
      "position_init", "SINCOS",
      absl::StrCat("a dim that is a multiple of 4 with it, not ",
                   config.dim()));
  errors.RequirePositive("position_scale", config.position_scale());
  const int stem = config.conv_stem_dims_size();
  for (int64_t channels : config.conv_stem_dims())
    errors.RequirePositive("conv_stem_dims", channels);
  errors.Require(
      stem == 0 || config.patch_size() <= 0 ||
          (stem <= 30 && config.patch_size() % (int64_t{1} << stem) == 0),
      "conv_stem_dims", absl::StrCat(stem, " convolutions of stride 2"),
      absl::StrCat("so few that 2^", stem, " divides patch_size ",
                   config.patch_size()));
  return errors.status();
}

Contract VitContract(const std::string& /*instance*/, const VitConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kTokens, config.dim()}};
  contract.batch_keys = {"image"};
  return contract;
}

absl::StatusOr<std::shared_ptr<ImageEncoder>> MakeVit(
    const VitConfig& config, const PluginContext& context) {
  if (absl::Status status = ValidateVit(config); !status.ok()) return status;
  if (context.book != nullptr &&
      context.book->image_size % config.patch_size() != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder ", context.instance, ": images of ", context.book->image_size,
        " pixels are not whole patches of ", config.patch_size(),
        "; change transform.size of the stream or patch_size"));
  }
  return std::make_shared<Vit>(config);
}

}  // namespace semvq
