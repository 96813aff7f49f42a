#include "kernels/short_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/short_attention_avx512.h"

namespace semvq {
namespace {

using internal::HeadGradient;
using internal::HeadInput;
using internal::HeadShape;
using internal::HeadView;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kMostHeadDim = 128;

// What at::RecordFunction sees, as of an operator: trainer/step_meter.cc counts
// by these names.
constexpr char kShortAttention[] = "semvq::short_attention";
constexpr char kShortAttentionBackward[] = "semvq::short_attention_backward";

// One of the roles of q, k and v: [B, N, H, d], dense in d.
HeadView View(const at::Tensor& x, int64_t sequence, int64_t head) {
  return {reinterpret_cast<uint16_t*>(x.data_ptr<at::BFloat16>()) +
              sequence * x.stride(0) + head * x.stride(2),
          x.stride(1)};
}

// The rows of one role of packed [B, N, roles, H, d].
at::Tensor Role(const at::Tensor& packed, int64_t role) {
  return packed.select(2, role);
}

struct Heads {
  at::Tensor given;    // That q is of.
  at::Tensor q, k, v;  // [B, N, H, d]
  at::Tensor mask;     // bool [B, M], dense, or undefined.

  HeadShape shape() const {
    HeadShape shape;
    shape.queries = q.size(1);
    shape.keys = k.size(1);
    shape.dim = q.size(3);
    shape.scale = static_cast<float>(1.0 / std::sqrt(q.size(3)));
    return shape;
  }
  HeadInput Input(int64_t sequence, int64_t head) const {
    HeadInput in;
    in.q = View(q, sequence, head);
    in.k = View(k, sequence, head);
    in.v = View(v, sequence, head);
    if (mask.defined()) in.seen = mask.data_ptr<bool>() + sequence * k.size(1);
    return in;
  }
  // For who counts operations: as ATen has q, k and v.
  std::vector<c10::IValue> Recorded() const {
    return {given, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)};
  }
  // Calls f(sequence, head, workspace) for each, on all threads.
  template <typename F>
  void ForEach(const F& f) const {
    const int64_t heads = q.size(2);
    const int64_t size = internal::HeadWorkspace(shape());
    at::parallel_for(0, q.size(0) * heads, 1, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<void, decltype(&std::free)> work(
          std::aligned_alloc(64, size), &std::free);
      TORCH_CHECK_WITH(OutOfMemoryError, work != nullptr, "attention: no ",
                       size, " bytes of working memory");
      for (int64_t i = begin; i < end; ++i) f(i / heads, i % heads, work.get());
    });
  }
};

// The result [B, Q, H * d], and what the backward needs, [B, H, Q].
std::pair<at::Tensor, at::Tensor> Forward(const Heads& in) {
  RECORD_FUNCTION(kShortAttention, in.Recorded());
  const int64_t queries = in.q.size(1), heads = in.q.size(2);
  const at::Tensor out =
      at::empty({in.q.size(0), queries, heads, in.q.size(3)}, in.q.options());
  const at::Tensor sums = at::empty({in.q.size(0), heads, queries}, at::kFloat);
  const HeadShape shape = in.shape();
  float* log_sums = sums.data_ptr<float>();
  in.ForEach([&](int64_t sequence, int64_t head, void* work) {
    internal::HeadForward(shape, in.Input(sequence, head),
                          View(out, sequence, head),
                          log_sums + (sequence * heads + head) * queries, work);
  });
  return {out.flatten(2), sums};
}

// Writes the gradients of q, k and v into `to`, which are like `in`'s.
void Backward(const Heads& in, const at::Tensor& out, const at::Tensor& sums,
              const at::Tensor& grad_out, const Heads& to) {
  RECORD_FUNCTION(kShortAttentionBackward, in.Recorded());
  const int64_t queries = in.q.size(1), heads = in.q.size(2);
  const HeadShape shape = in.shape();
  const at::Tensor by_head = out.view(in.q.sizes());
  const at::Tensor grad = grad_out.contiguous().view(in.q.sizes());
  const float* log_sums = sums.data_ptr<float>();
  in.ForEach([&](int64_t sequence, int64_t head, void* work) {
    HeadGradient gradient;
    gradient.out = View(by_head, sequence, head);
    gradient.grad_out = View(grad, sequence, head);
    gradient.grad_q = View(to.q, sequence, head);
    gradient.grad_k = View(to.k, sequence, head);
    gradient.grad_v = View(to.v, sequence, head);
    internal::HeadBackward(shape, in.Input(sequence, head),
                           log_sums + (sequence * heads + head) * queries,
                           gradient, work);
  });
}

Heads OfSelf(const at::Tensor& qkv, const at::Tensor& mask) {
  return {qkv, Role(qkv, 0), Role(qkv, 1), Role(qkv, 2), mask};
}
Heads OfCross(const at::Tensor& q, const at::Tensor& kv,
              const at::Tensor& mask) {
  return {q, q, Role(kv, 0), Role(kv, 1), mask};
}

void CheckOnce() {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              "attention over few keys in bfloat16 is differentiable once: "
              "create_graph needs float32");
}

struct SelfFunction : torch::autograd::Function<SelfFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const std::optional<at::Tensor>& seen) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor mask = seen.value_or(at::Tensor());
    const auto [out, sums] = Forward(OfSelf(qkv, mask));
    context->save_for_backward({qkv, mask, out, sums});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    CheckOnce();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = at::empty_like(saved[0]);
    Backward(OfSelf(saved[0], saved[1]), saved[2], saved[3], grads[0],
             OfSelf(grad, saved[1]));
    return {grad, at::Tensor()};
  }
};

struct CrossFunction : torch::autograd::Function<CrossFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& kv,
                            const std::optional<at::Tensor>& seen) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::Tensor mask = seen.value_or(at::Tensor());
    const auto [out, sums] = Forward(OfCross(q, kv, mask));
    context->save_for_backward({q, kv, mask, out, sums});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    CheckOnce();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad_q = at::empty_like(saved[0]);
    const at::Tensor grad_kv = at::empty_like(saved[1]);
    Backward(OfCross(saved[0], saved[1], saved[2]), saved[3], saved[4],
             grads[0], OfCross(grad_q, grad_kv, saved[2]));
    return {grad_q, grad_kv, at::Tensor()};
  }
};

void CheckPacked(const char* what, const at::Tensor& x, int64_t roles) {
  TORCH_CHECK(x.is_cpu() && x.scalar_type() == at::kBFloat16 &&
                  x.dim() == (roles > 1 ? 5 : 4) &&
                  (roles == 1 || x.size(2) == roles),
              what, ": expected bfloat16 on the CPU, [B, N, ",
              roles > 1 ? std::to_string(roles) + ", " : "", "H, d], got ",
              x.scalar_type(), " ", x.sizes(), " on ", x.device());
}

// nullopt for an undefined one, which Function::apply does not take.
std::optional<at::Tensor> CheckedMask(const char* what, const at::Tensor& mask,
                                      int64_t sequences, int64_t keys,
                                      int64_t dim) {
  TORCH_CHECK(HasShortAttention(keys, dim), what, ": not for ", keys,
              " keys and heads of ", dim, " on this processor");
  if (!mask.defined()) return std::nullopt;
  TORCH_CHECK(mask.scalar_type() == at::kBool &&
                  mask.sizes() == at::IntArrayRef({sequences, keys}),
              what, ": expected a bool mask of [", sequences, ", ", keys,
              "], got ", mask.scalar_type(), " ", mask.sizes());
  return mask.contiguous();
}

}  // namespace

bool HasShortAttention(int64_t keys, int64_t head_dim) {
  static const bool has = internal::HasHeadKernels();
  return has && keys > 0 && keys <= kMostShortKeys && head_dim > 0 &&
         head_dim % 16 == 0 && head_dim <= kMostHeadDim;
}

at::Tensor ShortSelfAttention(const at::Tensor& qkv,
                              const at::Tensor& key_mask) {
  CheckPacked("ShortSelfAttention", qkv, 3);
  return SelfFunction::apply(
      qkv.contiguous(), CheckedMask("ShortSelfAttention", key_mask, qkv.size(0),
                                    qkv.size(1), qkv.size(4)));
}

at::Tensor ShortCrossAttention(const at::Tensor& q, const at::Tensor& kv,
                               const at::Tensor& key_mask) {
  CheckPacked("ShortCrossAttention", q, 1);
  CheckPacked("ShortCrossAttention", kv, 2);
  TORCH_CHECK(q.size(0) == kv.size(0) && q.size(2) == kv.size(3) &&
                  q.size(3) == kv.size(4),
              "ShortCrossAttention: queries ", q.sizes(),
              " do not fit keys and values ", kv.sizes());
  return CrossFunction::apply(q.contiguous(), kv.contiguous(),
                              CheckedMask("ShortCrossAttention", key_mask,
                                          kv.size(0), kv.size(1), kv.size(4)));
}

}  // namespace semvq
