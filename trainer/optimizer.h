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
#include "core/distributed/communicator.h"
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
//
// With config.zero and a group, a rank has the averages of its slice of each of
// GradientBuckets alone [ZeRO stage 1], and needs the gradients of those alone
// (GradientReducerOptions::scatter; elsewhere they are zeros). ClipGradients,
// Step, State and LoadState are then collective.
class AdamW {
 public:
  // InvalidArgument when a group's pattern is no valid RE2 or matches no
  // parameter. The group (null: one rank) must outlive the optimizer.
  static absl::StatusOr<AdamW> Create(const OptimizerConfig& config,
                                      const NamedTensors& parameters,
                                      Communicator* group = nullptr);

  void ZeroGrad();
  // Euclidean norm over all gradients (scalar tensor); scales them when
  // `clip_norm` is set and exceeded.
  at::Tensor ClipGradients();
  void Step(double lr);

  // State of all parameters as named tensors: exp_avg/<p>, exp_avg_sq/<p>,
  // step/<p>; whatever the number of ranks.
  NamedTensors State() const;
  // Copies a State() back; NotFound names the first tensor that is missing,
  // InvalidArgument the first of wrong shape.
  absl::Status LoadState(const NamedTensors& state);

 private:
  struct Group {
    double lr_scale = 1;
    double weight_decay = 0;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, steps;
    // Of this rank's elements of each parameter, all of them or (zero) those
    // from `begin`, in one dimension.
    std::vector<at::Tensor> exp_avg, exp_avg_sq;
    std::vector<int64_t> begin;
  };
  // One rank's elements of one parameter: `count` of them from `begin`, which
  // are those from `at` in the rank's part.
  struct Piece {
    int64_t begin = 0, count = 0, at = 0;
  };
  using Cut = std::vector<Piece>;  // By rank.

  // This rank's elements of what has the shape of parameter i.
  at::Tensor Own(const Group& group, size_t i, const at::Tensor& whole) const;
  // Cuts the parameters into the ranks' parts. `order` are the trained ones as
  // the reducer has them.
  void Shard(const std::vector<at::Tensor>& order);
  // The ranks' parts of every parameter, [group by group, in order], put
  // together; `parts`: this rank's.
  std::vector<at::Tensor> Whole(const std::vector<at::Tensor>& parts) const;

  OptimizerConfig config_;
  std::vector<Group> groups_;
  Communicator* ranks_ = nullptr;  // Null unless the state is cut.
  std::vector<Cut> cuts_;          // Of all groups' parameters.
  int64_t part_ = 0;               // Elements of a rank's part, padded.
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_OPTIMIZER_H_
