// Interfaces of the encoders.
#ifndef SEMVQ_CORE_PLUGIN_ENCODER_H_
#define SEMVQ_CORE_PLUGIN_ENCODER_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/forward/types.h"

namespace semvq {

class ImageEncoder : public torch::nn::Module {
 public:
  // [B, 3, H, W] to [B, (1+)N, dim()]. A patch mask replaces masked patches by
  // the learned mask token.
  virtual Tokens Encode(const ImageInput& input) = 0;
  virtual int64_t dim() const = 0;
};

class TextEncoder : public torch::nn::Module {
 public:
  // [T, L] to [T, L, dim()]; position 0 is [CLS].
  virtual Tokens Encode(const TextInput& input) = 0;
  virtual int64_t dim() const = 0;
};

class FusionEncoder : public torch::nn::Module {
 public:
  // Text tokens [P, L, dim()] attend to image tokens. `images` holds one entry
  // per image slot, each [B, N, D']; `image_index` (int64 [P]; undefined: P =
  // B, identity) says which row of them a text reads, so that keys and values
  // are projected once per image, not once per pair.
  virtual Tokens Fuse(const Tokens& text, absl::Span<const Tokens> images,
                      const at::Tensor& image_index) = 0;
  virtual int64_t dim() const = 0;

  // The same tokens, up to rounding, with the attention probabilities that one
  // layer's text queries give each image's tokens: for every image slot float
  // [P, heads, L, N], before dropout. With gradients on the tokens depend on
  // the maps in the autograd graph, whether or not parameters are trained.
  struct FusedWithMaps {
    Tokens tokens;
    std::vector<at::Tensor> maps;
  };
  // Asked for the layers whose CrossAttentionView the contract provides.
  virtual FusedWithMaps FuseWithMaps(const Tokens& /*text*/,
                                     absl::Span<const Tokens> /*images*/,
                                     const at::Tensor& /*image_index*/,
                                     int64_t layer) {
    TORCH_CHECK(false, "this fusion encoder gives no attention map of layer ",
                layer);
  }
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_ENCODER_H_
