// Activation checkpointing [Chen et al. 2016]: memory for time.
#ifndef SEMVQ_CORE_NN_RECOMPUTE_H_
#define SEMVQ_CORE_NN_RECOMPUTE_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace semvq {

using TensorListFunction =
    std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Name of the at::RecordScope::USER_SCOPE around fn in the forward, where
// gradients are off although a graph is made.
inline constexpr char kRecomputeScope[] = "recompute";

// fn(inputs), of which only the inputs are kept: the backward computes fn
// again, with the draws that the default generators gave and the autocast that
// was on in the forward, so that the gradients are those without. Without
// gradients it is fn(inputs).
//
// `parameters` are the tensors beside `inputs` that fn uses and that need a
// gradient; others get none. The outer backward accumulates theirs, once for
// all uses, as c10d's reducer demands. fn must give the same when it is called
// again, and what it refers to must live until then. Gradients of gradients are
// not possible: c10::Error.
at::Tensor Recompute(const TensorListFunction& fn,
                     const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters);

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_RECOMPUTE_H_
