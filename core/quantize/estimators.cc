#include "core/quantize/estimators.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The value of `value`, the gradient of `path`. Adding 0 times the path rounds
// nothing, as the usual path + (value - path) would, shows what is not finite
// in it, and makes one tensor instead of two.
struct GradientOfFunction : torch::autograd::Function<GradientOfFunction> {
  static at::Tensor forward(AutogradContext* /*context*/,
                            const at::Tensor& value, const at::Tensor& path) {
    return at::add(value, path, /*alpha=*/0);
  }
  static variable_list backward(AutogradContext* /*context*/,
                                variable_list grads) {
    return {at::Tensor(), grads[0]};
  }
};

at::Tensor WithGradientOf(const at::Tensor& value, const at::Tensor& path) {
  return GradientOfFunction::apply(value.detach(), path);
}

// Divides by the largest magnitude first, so that no square under- or
// overflows.
at::Tensor Norm(const at::Tensor& x) {
  const at::Tensor scale = x.abs().amax(-1, /*keepdim=*/true);
  const at::Tensor safe =
      at::where(scale > 0, scale, at::ones({}, scale.options()));
  return safe * (x / safe).square().sum(-1, true).sqrt();
}

}  // namespace

at::Tensor StraightThrough(const at::Tensor& features,
                           const at::Tensor& vectors) {
  return WithGradientOf(vectors, features);
}

at::Tensor WithMixtureGradient(const at::Tensor& vectors, const at::Tensor& p,
                               const at::Tensor& codebook) {
  // The product is exactly 0.
  return vectors + at::matmul(p - p.detach(), codebook.detach());
}

at::Tensor RotationTrick(const at::Tensor& features,
                         const at::Tensor& vectors) {
  const at::Tensor e = features.detach(), q = vectors.detach();
  const at::Tensor e_norm = Norm(e), q_norm = Norm(q);
  const at::Tensor one = at::ones({}, e.options());
  // A zero code has no direction; scale 0 is then the formula's own limit.
  const at::Tensor e_unit = e / at::where(e_norm > 0, e_norm, one);
  const at::Tensor q_unit = q / at::where(q_norm > 0, q_norm, one);
  const at::Tensor sum = e_unit + q_unit;
  const at::Tensor sum_norm = sum.square().sum(-1, true).sqrt();
  // Nearly opposite vectors: w would be the direction of a rounding error.
  const at::Tensor defined = (e_norm > 0).logical_and(sum_norm > 1e-3);
  const at::Tensor w = sum / at::where(defined, sum_norm, one);
  const at::Tensor scale = q_norm / at::where(e_norm > 0, e_norm, one);

  const at::Tensor along_w = (features * w).sum(-1, true);
  const at::Tensor along_e = (features * e_unit).sum(-1, true);
  const at::Tensor rotated =
      scale * (features - 2 * w * along_w + 2 * q_unit * along_e);
  return WithGradientOf(vectors, at::where(defined, rotated, features));
}

}  // namespace semvq
