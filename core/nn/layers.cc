#include "core/nn/layers.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "core/random/stream.h"

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// On a CPU in float32, x W^T + b and the gradient g W run on oneDNN, the
// gradient g^T x on ATen's default (MKL). Measured on two AMD EPYC cores, in ms
// (MKL / oneDNN):
//   [rows] x in -> out        forward        g W          g^T x
//   [4096]  128 -> 512      4.1 /   3.3    3.8 /   2.7    3.6 /   4.6
//   [4096]  256 -> 1024    13.9 /  10.2   13.9 /  10.0   13.7 /  16.1
//   [12544] 768 -> 3072     369 /   335    389 /   312    364 /   508
// Below kOneDnnMultiplyAdds both are equally fast and oneDNN's call costs more.
constexpr int64_t kOneDnnMultiplyAdds = int64_t{1} << 23;

// x [M, in], weight [out, in] (any strides). oneDNN's product of dense tensors
// is reached through the dispatcher only; aten::mkldnn_linear takes opaque
// ones.
at::Tensor OneDnnProduct(const at::Tensor& x, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias) {
  using Signature = at::Tensor(
      const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
      c10::string_view, c10::List<std::optional<at::Scalar>>,
      std::optional<c10::string_view>);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                             .typed<Signature>();
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return op.call(x, weight, bias, "none",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

class OneDnnLinear : public torch::autograd::Function<OneDnnLinear> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return OneDnnProduct(x, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& weight = saved[1];
    if (!grads[0].defined()) return {{}, {}, {}};
    const at::Tensor g = grads[0].contiguous();
    variable_list out(3);
    if (ctx->needs_input_grad(0)) {
      // With create_graph the gradient itself must be differentiable.
      out[0] = at::GradMode::is_enabled()
                   ? at::mm(g, weight)
                   : OneDnnProduct(g, weight.t(), std::nullopt);
    }
    if (ctx->needs_input_grad(1)) out[1] = at::mm(g.t(), x);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2))
      out[2] = g.sum(0);
    return out;
  }
};

bool UseOneDnn(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat &&
         weight.scalar_type() == at::kFloat && weight.dim() == 2 &&
         x.dim() >= 2 && x.size(-1) == weight.size(1) &&
         x.numel() * weight.size(0) >= kOneDnnMultiplyAdds &&
         at::globalContext().hasMKLDNN() &&
         at::globalContext().userEnabledMkldnn() &&
         !at::autocast::is_autocast_enabled(at::kCPU);
}

// Factors 0 or 1 / keep for dropout. ATen's CPU dropout draws its mask one
// value at a time (6 ns each, more than the layer it follows at small sizes);
// this takes one number from the default generator and hashes (number, index)
// on all threads, with the same result for any number of them.
at::Tensor DropoutFactors(const at::Tensor& like, double p) {
  const auto threshold = static_cast<uint32_t>(
      std::clamp<int64_t>(std::llround((1.0 - p) * 65536.0), 0, 65536));
  const float factor = threshold == 0 ? 0.0f : 65536.0f / threshold;
  at::Tensor draw = at::empty({1}, at::kLong);
  draw.random_();
  const uint64_t key = Mix64(static_cast<uint64_t>(draw.item<int64_t>()));
  at::Tensor factors = at::empty(like.sizes(), at::kFloat);
  float* out = factors.data_ptr<float>();
  const int64_t size = factors.numel();
  at::parallel_for(0, (size + 3) / 4, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint64_t bits = Mix64(key + static_cast<uint64_t>(i));
      const int64_t last = std::min<int64_t>(4, size - 4 * i);
      for (int64_t j = 0; j < last; ++j)
        out[4 * i + j] =
            ((bits >> (16 * j)) & 0xFFFF) < threshold ? factor : 0.0f;
    }
  });
  return factors.to(like.scalar_type());
}

}  // namespace

at::Tensor TruncatedNormal(at::Tensor tensor, double std) {
  at::NoGradGuard no_grad;
  // Inverse of the distribution function, on uniform draws between its values
  // at the two cuts: no rejection, so the number of draws is fixed.
  const double reach = std::erf(2.0 / std::sqrt(2.0));
  tensor.uniform_(-reach, reach);
  tensor.erfinv_().mul_(std * std::sqrt(2.0));
  return tensor.clamp_(-2.0 * std, 2.0 * std);
}

at::Tensor LinearOp(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias) {
  if (!UseOneDnn(x, weight)) return at::linear(x, weight, bias);
  const at::Tensor rows = x.dim() == 2 ? x : x.flatten(0, -2);
  const at::Tensor out = OneDnnLinear::apply(
      rows, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  if (x.dim() == 2) return out;
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return out.view(shape);
}

at::Tensor Dropout(const at::Tensor& x, double p, bool training) {
  if (!training || p <= 0.0) return x;
  if (x.is_cpu()) return x * DropoutFactors(x, p);
  return at::dropout(x, p, true);
}

double LinearInitStd(int64_t in) {
  constexpr double kBaseWidth = 768;
  constexpr double kBaseStd = 0.02;
  return in < kBaseWidth
             ? kBaseStd * std::sqrt(kBaseWidth / static_cast<double>(in))
             : kBaseStd;
}

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  weight = register_parameter(
      "weight", TruncatedNormal(at::empty({out, in}), LinearInitStd(in)));
  if (with_bias) bias = register_parameter("bias", at::zeros({out}));
}

LayerNorm::LayerNorm(int64_t dim, double eps) : eps_(eps) {
  weight = register_parameter("weight", at::ones({dim}));
  bias = register_parameter("bias", at::zeros({dim}));
}

at::Tensor LayerNorm::Forward(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, eps_);
}

LayerScale::LayerScale(int64_t dim, double start) {
  gamma = register_parameter("gamma", at::full({dim}, start, at::kFloat));
}

Embedding::Embedding(int64_t num, int64_t dim, int64_t padding_idx)
    : padding_idx_(padding_idx) {
  at::Tensor table = TruncatedNormal(at::empty({num, dim}));
  if (padding_idx_ >= 0) table.select(0, padding_idx_).zero_();
  weight = register_parameter("weight", table);
}

at::Tensor Embedding::Forward(const at::Tensor& ids) const {
  return at::embedding(weight, ids, padding_idx_);
}

Mlp::Mlp(int64_t dim, int64_t hidden, double dropout)
    : Mlp(dim, hidden, dim, dropout) {}

Mlp::Mlp(int64_t dim, int64_t hidden, int64_t out, double dropout)
    : fc1(std::make_shared<Linear>(dim, hidden)),
      fc2(std::make_shared<Linear>(hidden, out)),
      dropout_(dropout) {
  register_module("fc1", fc1);
  register_module("fc2", fc2);
}

at::Tensor Mlp::Forward(const at::Tensor& x) const {
  return Dropout(fc2->Forward(at::gelu(fc1->Forward(x))), dropout_,
                 is_training());
}

}  // namespace semvq
