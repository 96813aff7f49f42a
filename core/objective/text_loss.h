// Losses of models that write text.
#ifndef SEMVQ_CORE_OBJECTIVE_TEXT_LOSS_H_
#define SEMVQ_CORE_OBJECTIVE_TEXT_LOSS_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// [R, N]: the cross-entropy of each target, 0 where the target is negative.
//   logits [R, N, V], targets int64 [R, N]
// label_smoothing: share of the target that is spread over the whole
// vocabulary [Szegedy et al. 2016]. With `soft_logits` (same shape; undefined:
// none) and alpha > 0 the loss is (1 - alpha) * that + alpha * the
// cross-entropy against softmax(soft_logits), which is detached [ALBEF].
at::Tensor TokenLosses(const at::Tensor& logits, const at::Tensor& targets,
                       double label_smoothing = 0.0,
                       const at::Tensor& soft_logits = {}, double alpha = 0.0);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_TEXT_LOSS_H_
