#include "core/objective/text_loss.h"

#include <torch/types.h>

#include "core/objective/losses.h"

namespace semvq {

at::Tensor TokenLosses(const at::Tensor& logits, const at::Tensor& targets,
                       double label_smoothing, const at::Tensor& soft_logits,
                       double alpha) {
  const int64_t classes = logits.size(-1);
  const at::Tensor flat = Upcast(logits).reshape({-1, classes});
  const at::Tensor flat_targets = targets.reshape({-1});
  at::Tensor losses = at::cross_entropy_loss(
      flat, flat_targets, /*weight=*/{}, at::Reduction::None,
      /*ignore_index=*/-1, label_smoothing);
  if (soft_logits.defined() && alpha > 0) {
    const at::Tensor soft =
        at::softmax(Upcast(soft_logits.detach()).reshape({-1, classes}), -1);
    const at::Tensor distilled =
        -(soft * at::log_softmax(flat, -1)).sum(-1) * flat_targets.ge(0);
    losses = losses * (1 - alpha) + distilled * alpha;
  }
  return losses.view(targets.sizes());
}

}  // namespace semvq
