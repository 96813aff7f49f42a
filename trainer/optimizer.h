// AdamW over named parameters, and the learning-rate schedule.
#ifndef SEMVQ_TRAINER_OPTIMIZER_H_
#define SEMVQ_TRAINER_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/forward/types.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Linear from warmup_lr to lr over warmup_steps, then a cosine to min_lr at
// `total_steps`. `step` counts optimizer steps done; the value is the rate of
// the next one.
double LearningRate(const OptimizerConfig& optimizer,
                    const ScheduleConfig& schedule, int64_t step,
                    int64_t total_steps);

// AdamW [Loshchilov and Hutter 2019] through ATen's fused operator; the same
// numbers as torch.optim.AdamW. Parameters without a gradient are left alone,
// as there.
class AdamW {
 public:
  // InvalidArgument when a group's pattern is no valid RE2 or matches no
  // parameter.
  static absl::StatusOr<AdamW> Create(const OptimizerConfig& config,
                                      const NamedTensors& parameters);

  void ZeroGrad();
  // Euclidean norm over all gradients (scalar tensor); scales them when
  // `clip_norm` is set and exceeded.
  at::Tensor ClipGradients();
  void Step(double lr);

  // State as named tensors: exp_avg/<p>, exp_avg_sq/<p>, step/<p>.
  NamedTensors State() const;
  // Copies a State() back; NotFound names the first tensor that is missing,
  // InvalidArgument the first of wrong shape.
  absl::Status LoadState(const NamedTensors& state);

 private:
  struct Group {
    double lr_scale = 1;
    double weight_decay = 0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, exp_avg, exp_avg_sq, steps;
  };
  OptimizerConfig config_;
  std::vector<Group> groups_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_OPTIMIZER_H_
