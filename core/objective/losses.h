// Losses and metrics that several objectives compute. None of them waits for
// the device.
#ifndef SEMVQ_CORE_OBJECTIVE_LOSSES_H_
#define SEMVQ_CORE_OBJECTIVE_LOSSES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace semvq {

class Communicator;  // core/distributed/communicator.h

// Half-precision logits as float32; float32 and float64 as they are. A softmax
// over bfloat16 logits divided by a small temperature would lose the ranking.
at::Tensor Upcast(const at::Tensor& logits);

// Switches autocast off in its scope, for products whose result needs float32.
class NoAutocast {
 public:
  NoAutocast();
  ~NoAutocast();
  NoAutocast(const NoAutocast&) = delete;
  NoAutocast& operator=(const NoAutocast&) = delete;

 private:
  struct Guard;
  Guard* guard_;
};

// What a masked loss is divided by, so that it is the mean over what is counted
// and 0 when nothing is: max(count, 1), where `count` [...] is of any dtype.
// With a group, 1/W of what all W ranks count: a rank's sum over that may be
// any number, but the mean of the ranks' is the mean over what they all count.
// Collective then.
at::Tensor SharedCount(const at::Tensor& count, Communicator* group);

// SharedCount of the targets that are not negative; a scalar.
at::Tensor CountTargets(const at::Tensor& targets, Communicator* group);

// sum / SharedCount(count, group).
at::Tensor MeanOverCount(const at::Tensor& sum, const at::Tensor& count,
                         Communicator* group = nullptr);

// Mean cross-entropy over the rows whose target is not negative: their sum over
// `count`, CountTargets(targets, group) (undefined: of this rank's alone).
//   logits [..., K], targets int64 [...]
// With `soft_logits` (same shape; undefined: none) and alpha > 0, the target is
// (1 - alpha) * one-hot + alpha * softmax(soft_logits) [ALBEF's distillation].
at::Tensor CrossEntropyAt(const at::Tensor& logits, const at::Tensor& targets,
                          const at::Tensor& soft_logits = {},
                          double alpha = 0.0, const at::Tensor& count = {});

// Mean over rows of -sum(target * log_softmax(logits)); rows where `row_weight`
// ([R]) is 0 do not count. Divided by SharedCount(row_weight.sum(), group).
// logits, target [R, C].
at::Tensor SoftCrossEntropy(const at::Tensor& logits, const at::Tensor& target,
                            const at::Tensor& row_weight,
                            Communicator* group = nullptr);

// Share of the rows with a target that is not negative whose largest logit is
// the target; `count` as for CrossEntropyAt. Detached.
at::Tensor Top1(const at::Tensor& logits, const at::Tensor& targets,
                const at::Tensor& count = {});

// `end`, reached linearly from 0 over `ramp_steps` optimizer steps (0: at
// once).
double LinearRamp(double end, int64_t ramp_steps, int64_t step);

// values [B, T, D] at positions int64 [B, M] -> [B, M, D].
at::Tensor GatherPositions(const at::Tensor& values,
                           const at::Tensor& positions);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_LOSSES_H_
