// Helpers for tests of differentiable code.
#ifndef SEMVQ_CORE_NN_TESTING_H_
#define SEMVQ_CORE_NN_TESTING_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "absl/status/status.h"

namespace semvq {

using TensorFunction =
    std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// Compares the gradients of `fn` with central differences of step `eps`, entry
// by entry. `inputs` are float64; those that require a gradient are checked,
// and are changed and restored while `fn` runs, so parameters of a module that
// `fn` uses may be given here too. An output that is no scalar is reduced with
// fixed random weights. Returns InvalidArgument for inputs of another type,
// Internal naming the worst entry when an error exceeds `tol` * (1 +
// |numeric|).
absl::Status NumericGradientCheck(const TensorFunction& fn,
                                  std::vector<at::Tensor> inputs,
                                  double eps = 1e-6, double tol = 1e-5);

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_TESTING_H_
