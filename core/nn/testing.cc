#include "core/nn/testing.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

// Thousands of tiny calls: on a busy machine, threads would mostly wait for one
// another.
class OneThread {
 public:
  OneThread() : threads_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(threads_); }

 private:
  int threads_;
};

}  // namespace

absl::Status NumericGradientCheck(const TensorFunction& fn,
                                  std::vector<at::Tensor> inputs, double eps,
                                  double tol) {
  OneThread one_thread;
  std::vector<at::Tensor> checked;
  for (const at::Tensor& input : inputs) {
    if (!input.requires_grad()) continue;
    if (input.scalar_type() != at::kDouble || !input.is_contiguous() ||
        !input.is_leaf()) {
      return absl::InvalidArgumentError(
          "NumericGradientCheck: inputs that require a gradient must be "
          "contiguous float64 leaves");
    }
    checked.push_back(input);
  }
  if (checked.empty())
    return absl::InvalidArgumentError(
        "NumericGradientCheck: no input requires a gradient");

  const at::Tensor first = fn(inputs);
  const at::Tensor weights =
      at::cos(at::arange(1, first.numel() + 1, first.options()))
          .reshape(first.sizes());
  auto scalar = [&](const at::Tensor& out) { return (out * weights).sum(); };
  const std::vector<at::Tensor> gradients = torch::autograd::grad(
      {scalar(first)}, checked, {}, /*retain_graph=*/false,
      /*create_graph=*/false, /*allow_unused=*/true);

  double worst = 0.0;
  std::string message;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < checked.size(); ++i) {
    double* data = checked[i].data_ptr<double>();
    const at::Tensor gradient = gradients[i].defined()
                                    ? gradients[i].contiguous()
                                    : at::zeros_like(checked[i]).contiguous();
    for (int64_t j = 0; j < checked[i].numel(); ++j) {
      const double value = data[j];
      data[j] = value + eps;
      const double above = scalar(fn(inputs)).item<double>();
      data[j] = value - eps;
      const double below = scalar(fn(inputs)).item<double>();
      data[j] = value;
      const double numeric = (above - below) / (2.0 * eps);
      const double analytic = gradient.data_ptr<double>()[j];
      const double error =
          std::abs(analytic - numeric) / (1.0 + std::abs(numeric));
      // Written so that NaN counts as an error.
      if (!(error <= std::max(worst, tol))) {
        worst = error;
        message = absl::StrCat("gradient of checked input ", i, ", entry ", j,
                               ": got ", analytic, ", numerically ", numeric);
      }
    }
  }
  return message.empty() ? absl::OkStatus() : absl::InternalError(message);
}

}  // namespace semvq
