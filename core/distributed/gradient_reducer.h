// Gradients averaged over ranks while the backward still runs.
#ifndef SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_
#define SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/distributed/communicator.h"

namespace semvq {

// Where gradients lie while they are sent, [PyTorch's DDP]: last layers first,
// in buckets of up to 25 MiB and one dtype.
struct GradientBuckets {
  explicit GradientBuckets(const std::vector<at::Tensor>& parameters);

  struct Place {
    size_t bucket = 0;
    int64_t offset = 0;  // In elements.
  };
  std::vector<std::vector<size_t>> members;  // Of each bucket, in order.
  std::vector<int64_t> sizes;                // Of the buckets, in elements.
  std::vector<Place> places;                 // Of each parameter.

  // Of a bucket of `size` elements, rank r of `ranks` has those from r times
  // this on, as far as there are any.
  static int64_t SliceSize(int64_t size, int64_t ranks) {
    return (size + ranks - 1) / ranks;
  }
};

struct GradientReducerOptions {
  // Gradients are rounded to bfloat16 on their way, half the bytes.
  bool bf16 = false;
  // Reduce-scatter instead of all-reduce: a rank gets its slice of each bucket
  // alone, and zeros elsewhere [ZeRO stage 1].
  bool scatter = false;
  // Which parameters get a gradient may differ from step to step, on all ranks
  // alike. Without, once all of them had one the graph is not searched again.
  bool varying_graph = true;
};

// PyTorch's own data-parallel engine, c10d::Reducer [Li et al. 2020]: gradients
// are packed into buckets, and each bucket is sent as soon as it is full. The
// graph is searched before a backward for parameters that it does not reach,
// which takes milliseconds, unless the options say that it need not be. What no
// rank used keeps no gradient.
class GradientReducer {
 public:
  // `parameters`: those to be trained, named for messages; the same, in the
  // same order, on every rank. Collective, as is Backward. Parameters, which
  // get hooks, and group must outlive the reducer.
  GradientReducer(
      const std::vector<std::pair<std::string, at::Tensor>>& parameters,
      Communicator* group, const GradientReducerOptions& options);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // The backward of a step's last micro-step. Afterwards every gradient, with
  // what earlier backwards of the step have left in it, is the mean over the
  // ranks. Throws c10::Error when a rank is lost, and when a parameter has no
  // gradient though the graph was not to vary.
  void Backward(const at::Tensor& loss);
  // Whether backwards still search the graph.
  bool searches() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_GRADIENT_REDUCER_H_
