// Gradients averaged over ranks while the backward still runs.
#ifndef SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_
#define SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/distributed/communicator.h"

namespace semvq {

// PyTorch's own data-parallel engine, c10d::Reducer [Li et al. 2020]: gradients
// are packed into buckets, last layers first, and each bucket is sent as soon
// as it is full. Which parameters get a gradient may differ from step to step,
// on all ranks alike: the graph is searched for them before each backward,
// which takes milliseconds. What no rank used keeps no gradient.
class GradientReducer {
 public:
  // `parameters`: those to be trained, named for messages; the same, in the
  // same order, on every rank. `bf16`: gradients are rounded to bfloat16 on
  // their way, half the bytes. Collective, as is Backward. Parameters, which
  // get hooks, and group must outlive the reducer.
  GradientReducer(
      const std::vector<std::pair<std::string, at::Tensor>>& parameters,
      Communicator* group, bool bf16);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // The backward of a step's last micro-step. Afterwards every gradient, with
  // what earlier backwards of the step have left in it, is the mean over the
  // ranks. Throws c10::Error when a rank is lost.
  void Backward(const at::Tensor& loss);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_
