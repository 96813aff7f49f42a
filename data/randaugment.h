// RandAugment (Cubuk et al. 2020) in the variant of ALBEF's training: ten
// operations, of which the photometric ones equal Pillow's and the geometric
// ones are OpenCV's bilinear warpAffine over grey.
#ifndef SEMVQ_DATA_RANDAUGMENT_H_
#define SEMVQ_DATA_RANDAUGMENT_H_

#include <ATen/core/Tensor.h>

#include "core/random/stream.h"

namespace semvq {

enum class AugmentOp {
  kIdentity,
  kAutoContrast,
  kEqualize,
  kBrightness,  // value: factor; 1 leaves the image as it is.
  kSharpness,   // value: factor; 0 smooths, 1 leaves the image as it is.
  kShearX,      // value: pixels to the side per pixel down.
  kShearY,
  kTranslateX,  // value: pixels.
  kTranslateY,
  kRotate,  // value: degrees, counter-clockwise.
};
constexpr int kNumAugmentOps = 10;

// uint8 [H, W, 3], contiguous, to a new tensor of the same kind (the same one
// for kIdentity). Operations that need no value ignore it. Pixels from outside
// are grey (128).
at::Tensor ApplyAugmentOp(const at::Tensor& image, AugmentOp op, double value);

// `ops` operations drawn with replacement, each applied with probability 1/2,
// at `magnitude` of 10: factor 0.1 + 1.8 m, shear 0.3 m, 10 m pixels of a
// 256-pixel image (in proportion for others), 30 m degrees, with m = magnitude
// / 10; geometric ones with a random sign.
at::Tensor RandAugment(at::Tensor image, int ops, int magnitude,
                       RandomStream* random);

}  // namespace semvq

#endif  // SEMVQ_DATA_RANDAUGMENT_H_
