// Decoded pixels to the model's input: crop, resize, flip, RandAugment,
// normalise.
#ifndef SEMVQ_DATA_TRANSFORMS_H_
#define SEMVQ_DATA_TRANSFORMS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/status/status.h"
#include "core/random/stream.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Checks ranges and counts; one line per error, each starting with the field's
// name. Pure.
absl::Status ValidateImageTransform(const ImageTransform& transform);

// Antialiased bicubic resize, equal to Pillow's Image.resize(..., BICUBIC) in
// every value: uint8 [H, W, 3] to uint8 [height, width, 3], contiguous.
at::Tensor ResizeBicubic(const at::Tensor& image, int64_t height,
                         int64_t width);

// uint8 [H, W, 3] (contiguous, H and W at least 1) to float32 [3, size, size],
// (value / 255 - mean) / std. Training draws crop, flip and RandAugment from
// `random`. Evaluation draws nothing: no flip, no RandAugment, and
// RANDOM_RESIZED_CROP means RESIZE, which is ALBEF's evaluation. `transform`
// must be valid.
at::Tensor TransformImage(const at::Tensor& image,
                          const ImageTransform& transform, bool training,
                          RandomStream random);

// The same, written to `out`, 3 * size * size floats.
void TransformImageTo(const at::Tensor& image, const ImageTransform& transform,
                      bool training, RandomStream random, float* out);

// The part of the transform that is the same every time (RESIZE, CENTER_CROP),
// as uint8 [H, W, 3]: what a cache should keep. TransformImage of the result
// equals TransformImage of `image`.
at::Tensor ReduceImage(const at::Tensor& image, const ImageTransform& transform,
                       bool training);

// The shortest side at which a training image may be decoded without losing
// what the transform can show (see DecodeImageFile).
int64_t NeededSide(const ImageTransform& transform);

}  // namespace semvq

#endif  // SEMVQ_DATA_TRANSFORMS_H_
