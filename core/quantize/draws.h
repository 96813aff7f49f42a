// Draws of codes, and schedules of what they are drawn with.
#ifndef SEMVQ_CORE_QUANTIZE_DRAWS_H_
#define SEMVQ_CORE_QUANTIZE_DRAWS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "core/plugin/quantizer.h"

namespace semvq {

// From `start` at step 0 to `end` at `steps` and after by half a cosine; 0
// steps: `end` at once.
double CosineRamp(double start, double end, int64_t steps, int64_t step);

// Gumbel noise float64 [B * N, K] on the CPU for features [B, N, D], keyed by
// (context.seed, purpose, the image's draw key, position and code). Without
// draw keys: by the step and the image's place in the batch of all ranks.
// Throws c10::Error, naming the quantizer, when the keys are not one an image.
at::Tensor GumbelNoise(const at::Tensor& features, int64_t num_codes,
                       const std::string& purpose, const std::string& quantizer,
                       const QuantizeContext& context);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_DRAWS_H_
