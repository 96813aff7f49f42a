#include "encoders/resnet/resnet.h"

#include <torch/types.h>

#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/layers.h"
#include "core/nn/position.h"
#include "core/plugin/encoder.h"
#include "core/plugin/field_errors.h"

namespace semvq {
namespace {

// Channels that leave a bottleneck, in units of those of its 3x3 convolution.
constexpr int64_t kExpansion = 4;
constexpr int64_t kStages = 4;

struct Shape {
  bool bottleneck;
  std::array<int, kStages> blocks;
};

Shape ShapeOf(ResnetConfig::Variant variant) {
  switch (variant) {
    case ResnetConfig::RESNET18:
      return {false, {2, 2, 2, 2}};
    case ResnetConfig::RESNET34:
      return {false, {3, 4, 6, 3}};
    case ResnetConfig::RESNET50:
      return {true, {3, 4, 6, 3}};
    case ResnetConfig::RESNET101:
      return {true, {3, 4, 23, 3}};
    case ResnetConfig::RESNET152:
      break;
  }
  return {true, {3, 8, 36, 3}};
}

int64_t StageChannels(const ResnetConfig& config, int64_t stage) {
  return config.width() * (int64_t{1} << stage) *
         (ShapeOf(config.variant()).bottleneck ? kExpansion : 1);
}

// A square convolution without bias, padded to keep the size at stride 1.
class Conv : public torch::nn::Module {
 public:
  Conv(int64_t in, int64_t out, int64_t side, int64_t stride)
      : padding_(side / 2), stride_(stride) {
    // Keeps the gradient's variance through a rectifier [He et al. 2015].
    const double fan_out = static_cast<double>(out * side * side);
    weight = register_parameter(
        "weight",
        at::empty({out, in, side, side}).normal_(0, std::sqrt(2.0 / fan_out)));
  }
  at::Tensor Forward(const at::Tensor& x) const {
    return at::conv2d(x, weight, {}, {stride_, stride_}, {padding_, padding_});
  }

  at::Tensor weight;

 private:
  int64_t padding_, stride_;
};

// Batch normalisation [Ioffe and Szegedy 2015].
class BatchNorm : public torch::nn::Module {
 public:
  BatchNorm(int64_t channels, const ResnetConfig& config)
      : frozen_(config.frozen_batch_norm()),
        momentum_(config.batch_norm_momentum()),
        eps_(config.batch_norm_eps()) {
    weight_ = register_parameter("weight", at::ones({channels}), !frozen_);
    bias_ = register_parameter("bias", at::zeros({channels}), !frozen_);
    mean_ = register_buffer("running_mean", at::zeros({channels}));
    variance_ = register_buffer("running_var", at::ones({channels}));
  }

  // `track`: in training, the batch enters the running averages.
  at::Tensor Forward(const at::Tensor& x, bool track) const {
    const bool by_batch = is_training() && !frozen_;
    TORCH_CHECK(!by_batch || x.numel() > x.size(1),
                "resnet: batch norm in training needs more than one value a "
                "channel, got ",
                x.sizes(), "; use larger images or batches");
    const bool averages = !by_batch || track;
    return at::batch_norm(x, weight_, bias_, averages ? mean_ : at::Tensor(),
                          averages ? variance_ : at::Tensor(), by_batch,
                          momentum_, eps_,
                          at::globalContext().userEnabledCuDNN());
  }

 private:
  const bool frozen_;
  const double momentum_, eps_;
  at::Tensor weight_, bias_, mean_, variance_;
};

// Two or three convolutions beside a shortcut; the stride is in the 3x3 one, as
// in torchvision.
class Block : public torch::nn::Module {
 public:
  Block(int64_t in, int64_t width, int64_t stride, bool bottleneck,
        const ResnetConfig& config) {
    const int64_t out = bottleneck ? width * kExpansion : width;
    if (bottleneck) {
      Add(in, width, 1, 1, config);
      Add(width, width, 3, stride, config);
      Add(width, out, 1, 1, config);
    } else {
      Add(in, width, 3, stride, config);
      Add(width, out, 3, 1, config);
    }
    if (stride != 1 || in != out) {
      auto shortcut = std::make_shared<torch::nn::Module>();
      shortcut_conv_ = shortcut->register_module(
          "0", std::make_shared<Conv>(in, out, 1, stride));
      shortcut_norm_ = shortcut->register_module(
          "1", std::make_shared<BatchNorm>(out, config));
      register_module("downsample", shortcut);
    }
  }

  at::Tensor Forward(const at::Tensor& x, bool track) const {
    at::Tensor y = x;
    for (size_t i = 0; i < convs_.size(); ++i) {
      y = norms_[i]->Forward(convs_[i]->Forward(y), track);
      if (i + 1 < convs_.size()) y = at::relu(y);
    }
    const at::Tensor shortcut =
        shortcut_conv_ == nullptr
            ? x
            : shortcut_norm_->Forward(shortcut_conv_->Forward(x), track);
    return at::relu(y + shortcut);
  }

 private:
  void Add(int64_t in, int64_t out, int64_t side, int64_t stride,
           const ResnetConfig& config) {
    const size_t number = convs_.size() + 1;
    convs_.push_back(
        register_module(absl::StrCat("conv", number),
                        std::make_shared<Conv>(in, out, side, stride)));
    norms_.push_back(register_module(absl::StrCat("bn", number),
                                     std::make_shared<BatchNorm>(out, config)));
  }

  std::vector<std::shared_ptr<Conv>> convs_;
  std::vector<std::shared_ptr<BatchNorm>> norms_;
  std::shared_ptr<Conv> shortcut_conv_;
  std::shared_ptr<BatchNorm> shortcut_norm_;
};

class Resnet : public ImageEncoder {
 public:
  explicit Resnet(const ResnetConfig& config)
      : dim_(ResnetDim(config)),
        stride_(ResnetStride(config)),
        side_(config.image_size() / stride_),
        pool_(config.pool()) {
    const Shape shape = ShapeOf(config.variant());
    conv1_ = register_module("conv1",
                             std::make_shared<Conv>(3, config.width(), 7, 2));
    bn1_ = register_module("bn1",
                           std::make_shared<BatchNorm>(config.width(), config));
    int64_t channels = config.width();
    for (int64_t stage = 0; stage < config.stages(); ++stage) {
      auto layer = std::make_shared<torch::nn::Module>();
      for (int i = 0; i < shape.blocks[stage]; ++i) {
        const int64_t stride = stage > 0 && i == 0 ? 2 : 1;
        blocks_.push_back(layer->register_module(
            absl::StrCat(i),
            std::make_shared<Block>(channels, config.width() << stage, stride,
                                    shape.bottleneck, config)));
        channels = StageChannels(config, stage);
      }
      register_module(absl::StrCat("layer", stage + 1), layer);
    }
    mask_patch_ = register_parameter(
        "mask_patch", TruncatedNormal(at::empty({3, stride_, stride_})));
    if (config.dim() > 0) {
      proj_ = register_module("proj", std::make_shared<Linear>(channels, dim_));
    }
    if (config.positions()) {
      pos_embed_ = register_parameter(
          "pos_embed", TruncatedNormal(at::empty({1, side_ * side_, dim_})));
    }
    if (config.layer_norm())
      norm_ = register_module("norm", std::make_shared<LayerNorm>(dim_));
  }

  Tokens Encode(const ImageInput& input) override {
    const at::Tensor& pixels = input.pixels;
    TORCH_CHECK(pixels.dim() == 4 && pixels.size(1) == 3,
                "resnet: images must be [B, 3, H, W], got ", pixels.sizes());
    TORCH_CHECK(pixels.size(2) % stride_ == 0 && pixels.size(3) % stride_ == 0,
                "resnet: images of ", pixels.size(2), " x ", pixels.size(3),
                " pixels are not whole tokens of ", stride_, " x ", stride_);
    const Grid grid{pixels.size(2) / stride_, pixels.size(3) / stride_};
    const at::Tensor& hidden = input.patch_mask;
    TORCH_CHECK(!hidden.defined() ||
                    (hidden.dim() == 2 && hidden.size(0) == pixels.size(0) &&
                     hidden.size(1) == grid.height * grid.width),
                "resnet: patch mask ", hidden.sizes(), " does not fit ",
                pixels.size(0), " images of ", grid.height, " x ", grid.width,
                " tokens");
    at::Tensor x = hidden.defined() ? Hide(pixels, hidden, grid) : pixels;
    x = Trunk(x.contiguous(at::MemoryFormat::ChannelsLast),
              /*track=*/!hidden.defined());
    // Pooling and a 1x1 convolution are on the last dimension from here on.
    x = x.permute({0, 2, 3, 1});
    if (proj_ != nullptr) x = proj_->Forward(x);
    if (pool_) {
      x = at::max_pool2d(x.permute({0, 3, 1, 2}), {2, 2}, {2, 2})
              .permute({0, 2, 3, 1});
    }
    x = x.flatten(1, 2);
    if (pos_embed_.defined())
      x = x + ResizePositions(pos_embed_, {side_, side_}, grid, 0);
    Tokens tokens;
    tokens.values = norm_ == nullptr ? x : norm_->Forward(x);
    tokens.grid = grid;
    return tokens;
  }

  int64_t dim() const override { return dim_; }

 private:
  at::Tensor Trunk(at::Tensor x, bool track) const {
    x = at::relu(bn1_->Forward(conv1_->Forward(x), track));
    x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
    for (const auto& block : blocks_) x = block->Forward(x, track);
    return x;
  }

  at::Tensor Hide(const at::Tensor& pixels, const at::Tensor& hidden,
                  Grid grid) const {
    // [B, 3, height, side, width, side]
    const at::Tensor patches = pixels.unflatten(3, {grid.width, stride_})
                                   .unflatten(2, {grid.height, stride_});
    const at::Tensor instead = mask_patch_.to(pixels.scalar_type())
                                   .view({1, 3, 1, stride_, 1, stride_});
    return at::where(hidden.view({-1, 1, grid.height, 1, grid.width, 1}),
                     instead, patches)
        .flatten(4)
        .flatten(2, 3);
  }

  const int64_t dim_, stride_, side_;
  const bool pool_;
  std::shared_ptr<Conv> conv1_;
  std::shared_ptr<BatchNorm> bn1_;
  std::vector<std::shared_ptr<Block>> blocks_;
  at::Tensor mask_patch_, pos_embed_;
  std::shared_ptr<Linear> proj_;
  std::shared_ptr<LayerNorm> norm_;
};

}  // namespace

int64_t ResnetStride(const ResnetConfig& config) {
  return (int64_t{4} << (config.stages() - 1)) * (config.pool() ? 2 : 1);
}

int64_t ResnetDim(const ResnetConfig& config) {
  return config.dim() > 0 ? config.dim()
                          : StageChannels(config, config.stages() - 1);
}

absl::Status ValidateResnet(const ResnetConfig& config) {
  FieldErrors errors;
  errors.Require(config.width() > 0 && config.width() <= 1024, "width",
                 config.width(), "1 to 1024");
  const bool stages = config.stages() >= 1 && config.stages() <= kStages;
  errors.Require(stages, "stages", config.stages(), "1 to 4");
  errors.Require(config.dim() >= 0 && config.dim() <= (int64_t{1} << 20), "dim",
                 config.dim(), "0 (not projected) to 1048576");
  errors.Require(
      config.batch_norm_momentum() > 0 && config.batch_norm_momentum() <= 1,
      "batch_norm_momentum", config.batch_norm_momentum(),
      "more than 0 and at most 1");
  errors.Require(config.batch_norm_eps() > 0 && config.batch_norm_eps() < 1,
                 "batch_norm_eps", config.batch_norm_eps(),
                 "a number between 0 and 1, both excluded");
  if (stages) {
    const int64_t stride = ResnetStride(config);
    errors.Require(config.image_size() > 0 && config.image_size() <= 16384 &&
                       config.image_size() % stride == 0,
                   "image_size", config.image_size(),
                   absl::StrCat("a multiple of ", stride,
                                " (the pixels of a token) up to 16384"));
  }
  return errors.status();
}

Contract ResnetContract(const std::string& /*instance*/,
                        const ResnetConfig& config,
                        const ContractBook& /*book*/) {
  Contract contract;
  // The contract is asked for before the config is known to be valid.
  const bool valid = ValidateResnet(config).ok();
  contract.provides = {{kTokens, valid ? ResnetDim(config) : 0}};
  contract.batch_keys = {"image"};
  return contract;
}

absl::StatusOr<std::shared_ptr<ImageEncoder>> MakeResnet(
    const ResnetConfig& config, const PluginContext& context) {
  if (absl::Status status = ValidateResnet(config); !status.ok()) return status;
  if (context.book != nullptr &&
      context.book->image_size % ResnetStride(config) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder ", context.instance, ": images of ", context.book->image_size,
        " pixels are not whole tokens of ", ResnetStride(config),
        "; change transform.size of the stream, or stages or pool"));
  }
  return std::make_shared<Resnet>(config);
}

}  // namespace semvq
