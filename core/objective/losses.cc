#include "core/objective/losses.h"

#include <ATen/autocast_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/types.h>

#include <algorithm>

#include "core/distributed/communicator.h"

namespace semvq {

at::Tensor Upcast(const at::Tensor& logits) {
  const at::ScalarType type = logits.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? logits.to(at::kFloat)
                                                    : logits;
}

struct NoAutocast::Guard {
  c10::impl::ExcludeDispatchKeyGuard exclude{c10::autocast_dispatch_keyset};
};
NoAutocast::NoAutocast() : guard_(new Guard) {}
NoAutocast::~NoAutocast() { delete guard_; }

namespace {

// `count` as SharedCount gives it.
at::Tensor Divide(const at::Tensor& sum, const at::Tensor& count) {
  // A float64 count must not widen the loss.
  return sum /
         (count.is_floating_point() ? count.to(sum.scalar_type()) : count);
}

}  // namespace

at::Tensor SharedCount(const at::Tensor& count, Communicator* group) {
  if (group == nullptr) return count.clamp_min(1);
  return group->AllReduceSum(count).to(at::kDouble).clamp_min(1) /
         static_cast<double>(group->size());
}

at::Tensor CountTargets(const at::Tensor& targets, Communicator* group) {
  return SharedCount(targets.ge(0).sum(), group);
}

at::Tensor MeanOverCount(const at::Tensor& sum, const at::Tensor& count,
                         Communicator* group) {
  return Divide(sum, SharedCount(count, group));
}

at::Tensor CrossEntropyAt(const at::Tensor& logits, const at::Tensor& targets,
                          const at::Tensor& soft_logits, double alpha,
                          const at::Tensor& shared_count) {
  const int64_t classes = logits.size(-1);
  const at::Tensor flat = Upcast(logits).reshape({-1, classes});
  const at::Tensor flat_targets = targets.reshape({-1});
  const at::Tensor valid = flat_targets.ge(0);
  const at::Tensor count =
      shared_count.defined() ? shared_count : SharedCount(valid.sum(), nullptr);
  if (!soft_logits.defined() || alpha <= 0) {
    const at::Tensor sum =
        at::cross_entropy_loss(flat, flat_targets, /*weight=*/{},
                               at::Reduction::Sum, /*ignore_index=*/-1);
    return Divide(sum, count);
  }
  const at::Tensor log_p = at::log_softmax(flat, -1);
  const at::Tensor hard =
      log_p.gather(1, flat_targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor soft =
      at::softmax(Upcast(soft_logits.detach()).reshape({-1, classes}), -1);
  const at::Tensor rows = hard * (1 - alpha) + (soft * log_p).sum(-1) * alpha;
  return Divide(-(rows * valid).sum(), count);
}

at::Tensor SoftCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& row_weight, Communicator* group) {
  const at::Tensor rows = -(target * at::log_softmax(logits, -1)).sum(-1);
  return MeanOverCount((rows * row_weight).sum(), row_weight.sum(), group);
}

at::Tensor Top1(const at::Tensor& logits, const at::Tensor& targets,
                const at::Tensor& count) {
  const at::Tensor hit = logits.detach().argmax(-1).eq(targets);
  return Divide(hit.sum().to(at::kFloat),
                count.defined() ? count : CountTargets(targets, nullptr));
}

double LinearRamp(double end, int64_t ramp_steps, int64_t step) {
  if (ramp_steps <= 0) return end;
  return end * std::min(1.0, static_cast<double>(step) / ramp_steps);
}

at::Tensor GatherPositions(const at::Tensor& values,
                           const at::Tensor& positions) {
  return values.gather(
      1, positions.unsqueeze(-1).expand({-1, -1, values.size(-1)}));
}

}  // namespace semvq
