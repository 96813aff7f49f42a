// Interfaces of the encoders.
#ifndef SEMVQ_CORE_PLUGIN_ENCODER_H_
#define SEMVQ_CORE_PLUGIN_ENCODER_H_

#include <torch/nn/module.h>

#include <cstdint>

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
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_ENCODER_H_
