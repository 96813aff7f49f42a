// Where in the image a text's match with it comes from.
#ifndef SEMVQ_TASKS_GROUNDING_GRAD_CAM_H_
#define SEMVQ_TASKS_GROUNDING_GRAD_CAM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/forward/forward.h"

namespace semvq {

struct GradCamViews {
  std::string fusion, matching, visual, text;  // Instances.
  int64_t layer = 0;                           // Of the fusion encoder, from 0.
};

// Grad-CAM [Selvaraju et al. 2017] on cross-attention [ALBEF]: relu(d score /
// d map) * map of the layer, averaged over the heads and the text's tokens
// ([CLS] and [SEP] among them, padding not), where the score is the match's
// logit; without the image's [CLS]. float64 [T, height, width] of the patch
// grid on the CPU, for every text with its own image. The batch's forward must
// not have fused before; gradients of parameters stay as they are.
// InvalidArgument when the image has no grid, the batch has several image
// slots, or `matching` does not read `fusion`.
absl::StatusOr<at::Tensor> GradCam(const GradCamViews& views, Forward& forward);

// [height, width] to [to_height, to_width], corners not aligned. Bicubic
// (ALBEF's) or bilinear.
at::Tensor ResizeMap(const at::Tensor& map, int64_t to_height, int64_t to_width,
                     bool bicubic);

}  // namespace semvq

#endif  // SEMVQ_TASKS_GROUNDING_GRAD_CAM_H_
