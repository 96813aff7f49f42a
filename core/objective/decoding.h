// What objectives that decode quantised tokens share: patches of pixels, and
// the caption as the decoder reads it.
#ifndef SEMVQ_CORE_OBJECTIVE_DECODING_H_
#define SEMVQ_CORE_OBJECTIVE_DECODING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "core/forward/forward.h"
#include "core/forward/types.h"
#include "core/nn/attention.h"

namespace semvq {

// [B, 3, H, W] to [B, N, 3 * patch * patch]; patches row by row, a patch
// ordered channel, row, column. `patch` divides H and W.
at::Tensor Patchify(const at::Tensor& images, int64_t patch);

// The inverse; N = grid.height * grid.width.
at::Tensor Unpatchify(const at::Tensor& patches, Grid grid, int64_t patch);

// Share of the target's variance that the prediction explains: 1 - MSE / MSE of
// the batch's mean target, which a constant reaches. [B, N, D] both; detached.
at::Tensor ExplainedVariance(const at::Tensor& prediction,
                             const at::Tensor& target);

// The first text of every image as text encoder `text` sees it unmasked,
// without gradient if `detach`: B rows to cross-attend to.
CrossMemory FirstTextMemory(const std::string& text, bool teacher, bool detach,
                            Forward& forward);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_DECODING_H_
