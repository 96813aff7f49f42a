#include "core/nn/attention.h"

#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "kernels/short_attention.h"

namespace semvq {
namespace {

void CheckHeads(int64_t dim, int64_t heads) {
  TORCH_CHECK(heads > 0 && dim % heads == 0, "attention: dimension ", dim,
              " is not a multiple of ", heads, " heads");
}

// [B, N, D] to [B, H, N, d] without a copy.
at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(1, 2);
}

// [B, H, N, d] to [B, N, D]; no copy after the fused kernel, whose result has
// the heads innermost.
at::Tensor MergeHeads(const at::Tensor& x) {
  return x.transpose(1, 2).flatten(2);
}

// bool [B, K] to [B, 1, 1, K]; undefined stays undefined.
at::Tensor KeyMask(const at::Tensor& mask) {
  return mask.defined() ? mask.unsqueeze(1).unsqueeze(1) : mask;
}

// What was projected for attention over `keys` keys, in the type that attention
// runs in. In autocast on a CPU that is bfloat16 for few keys and float32 for
// many, by ATen's fused kernel. Measured on one core with AVX512_BF16, forward
// and backward of 64 sequences of 65 tokens and 4 heads of 32: kernels for few
// keys 6 ms, plain products 8 ms, ATen's kernel 16 ms with the cast and 42 ms
// in bfloat16.
at::Tensor AttentionInput(const at::Tensor& x, int64_t keys,
                          const AttentionTap& tap) {
  return x.is_cpu() && at::autocast::is_autocast_enabled(at::kCPU) &&
                 (keys > kMostShortKeys || tap.enabled)
             ? x.to(at::kFloat)
             : x;
}

// Whether packed keys [..., d] go to the kernels for few keys.
bool UseShortAttention(const at::Tensor& packed, int64_t keys, double dropout,
                       const AttentionTap& tap) {
  return packed.is_cpu() && packed.scalar_type() == at::kBFloat16 &&
         dropout == 0.0 && !tap.enabled &&
         HasShortAttention(keys, packed.size(-1));
}

at::Tensor CausalMask(int64_t queries, int64_t keys, at::Device device) {
  return at::ones({queries, keys}, at::TensorOptions(at::kBool).device(device))
      .tril();
}

}  // namespace

at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& mask, bool causal, double dropout,
                  AttentionTap* tap, const at::Tensor& bias) {
  TORCH_CHECK(!causal || !mask.defined(),
              "Attend: fold the causal mask into `mask`");
  // CPU attention keeps the type it is given; see AttentionInput.
  std::optional<c10::impl::ExcludeDispatchKeyGuard> no_autocast;
  if (q.is_cpu()) no_autocast.emplace(c10::DispatchKey::AutocastCPU);
  const bool capture = tap != nullptr && tap->enabled;
  // The CPU's fused kernel has no dropout; ATen would take the steps below with
  // its slow mask.
  const bool by_products =
      q.is_cpu() && (dropout > 0.0 || (q.scalar_type() == at::kBFloat16 &&
                                       k.size(2) <= kMostShortKeys));
  if (!capture && !by_products) {
    std::optional<at::Tensor> optional_mask;
    if (mask.defined()) optional_mask = mask;
    if (bias.defined()) {
      const at::Tensor seen =
          causal ? CausalMask(q.size(2), k.size(2), q.device()) : mask;
      optional_mask = bias.to(q.scalar_type());
      if (seen.defined()) {
        optional_mask =
            at::where(seen, *optional_mask,
                      at::Scalar(-std::numeric_limits<double>::infinity()));
      }
      causal = false;
    }
    return at::scaled_dot_product_attention(q, k, v, optional_mask, dropout,
                                            causal);
  }
  at::Tensor scores =
      at::matmul(q * (1.0 / std::sqrt(q.size(-1))), k.transpose(-2, -1));
  if (bias.defined()) scores = scores + bias;
  const at::Tensor seen =
      causal ? CausalMask(q.size(2), k.size(2), q.device()) : mask;
  if (seen.defined()) {
    scores = scores.masked_fill(seen.logical_not(),
                                -std::numeric_limits<double>::infinity());
  }
  at::Tensor map = at::softmax(scores, -1);
  if (capture) {
    if (c10::GradMode::is_enabled() && !map.requires_grad())
      map.requires_grad_(true);
    tap->maps.push_back(map);
  }
  return at::matmul(Dropout(map, dropout, true), v);
}

SelfAttention::SelfAttention(int64_t dim, int64_t heads,
                             const AttentionOptions& options)
    : heads_(heads), dropout_(options.dropout) {
  CheckHeads(dim, heads);
  qkv_ = register_module("qkv",
                         std::make_shared<Linear>(dim, 3 * dim, options.bias));
  proj_ = register_module("proj", std::make_shared<Linear>(dim, dim));
}

at::Tensor SelfAttention::Forward(const at::Tensor& x,
                                  const at::Tensor& key_mask, bool causal,
                                  const at::Tensor& bias) {
  const at::Tensor qkv = AttentionInput(qkv_->Forward(x), x.size(1), tap_)
                             .unflatten(-1, {3, heads_, x.size(-1) / heads_});
  const double dropout = is_training() ? dropout_ : 0.0;
  if (!causal && !bias.defined() &&
      UseShortAttention(qkv, x.size(1), dropout, tap_)) {
    return proj_->Forward(ShortSelfAttention(qkv, key_mask));
  }
  // unbind, not three narrows: its gradient is written once.
  const std::vector<at::Tensor> parts = qkv.unbind(2);
  at::Tensor mask = KeyMask(key_mask);
  if (causal && mask.defined()) {
    mask = mask.logical_and(CausalMask(x.size(1), x.size(1), x.device()));
    causal = false;
  }
  const at::Tensor out =
      Attend(parts[0].transpose(1, 2), parts[1].transpose(1, 2),
             parts[2].transpose(1, 2), mask, causal, dropout, &tap_, bias);
  return proj_->Forward(MergeHeads(out));
}

CrossAttention::CrossAttention(int64_t dim, int64_t heads, int64_t kv_dim,
                               const AttentionOptions& options,
                               const CrossAttention* share_kv)
    : heads_(heads),
      dropout_(options.dropout),
      shares_kv_(share_kv != nullptr) {
  CheckHeads(dim, heads);
  q_ = register_module("q", std::make_shared<Linear>(dim, dim, options.bias));
  if (shares_kv_) {
    kv_ = share_kv->kv_;
    TORCH_CHECK(kv_->weight.size(0) == 2 * dim && kv_->weight.size(1) == kv_dim,
                "cross-attention: keys and values of ", kv_->weight.sizes(),
                " cannot be shared by a layer of dimensions ", dim, " and ",
                kv_dim);
  } else {
    kv_ = register_module(
        "kv", std::make_shared<Linear>(kv_dim, 2 * dim, options.bias));
  }
  proj_ = register_module("proj", std::make_shared<Linear>(dim, dim));
}

std::vector<at::Tensor> CrossAttention::SharedParameters() const {
  return shares_kv_ ? kv_->parameters() : std::vector<at::Tensor>();
}

at::Tensor CrossAttention::Forward(const at::Tensor& x,
                                   const CrossMemory& memory) {
  const int64_t keys = memory.values.size(1);
  at::Tensor kv = AttentionInput(kv_->Forward(memory.values), keys, tap_);
  at::Tensor mask = memory.mask;
  if (memory.index.defined()) {
    kv = kv.index_select(0, memory.index);
    if (mask.defined()) mask = mask.index_select(0, memory.index);
  }
  TORCH_CHECK(kv.size(0) > 0 && x.size(0) % kv.size(0) == 0,
              "cross-attention: ", x.size(0), " query sequences, but ",
              kv.size(0), " memories");
  at::Tensor q = AttentionInput(q_->Forward(x), keys, tap_);
  if (tap_.enabled) {  // A map of each query sequence's own.
    const int64_t sharing = q.size(0) / kv.size(0);
    kv = kv.repeat_interleave(sharing, 0);
    if (mask.defined()) mask = mask.repeat_interleave(sharing, 0);
  }
  // Neighbours that share a memory are one long sequence to attention.
  q = q.reshape({kv.size(0), -1, q.size(2)});
  kv = kv.unflatten(-1, {2, heads_, x.size(-1) / heads_});
  const double dropout = is_training() ? dropout_ : 0.0;
  if (UseShortAttention(kv, keys, dropout, tap_)) {
    const at::Tensor out = ShortCrossAttention(
        q.unflatten(-1, {heads_, x.size(-1) / heads_}), kv, mask);
    return proj_->Forward(out.view(x.sizes()));
  }
  const std::vector<at::Tensor> parts = kv.unbind(2);
  const at::Tensor out =
      Attend(SplitHeads(q, heads_), parts[0].transpose(1, 2),
             parts[1].transpose(1, 2), KeyMask(mask), false, dropout, &tap_);
  return proj_->Forward(MergeHeads(out).view(x.sizes()));
}

}  // namespace semvq
