#include "core/eval/information.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

namespace semvq {

double NormalizedMutualInformation(const at::Tensor& joint) {
  const at::Tensor p = joint.to(at::kDouble) / joint.sum().to(at::kDouble);
  const auto entropy = [](const at::Tensor& q) {
    return -at::xlogy(q, q).sum().item<double>();
  };
  const double a = entropy(p.sum(1)), b = entropy(p.sum(0));
  if (a <= 0 || b <= 0) return 0;
  return std::max(0.0, a + b - entropy(p)) / std::sqrt(a * b);
}

}  // namespace semvq
