// Multi-head attention [Vaswani et al. 2017] on
// at::scaled_dot_product_attention.
#ifndef SEMVQ_CORE_NN_ATTENTION_H_
#define SEMVQ_CORE_NN_ATTENTION_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/nn/layers.h"

namespace semvq {

// Captures attention maps. While `enabled`, the layer that holds the tap
// computes attention step by step instead of by the fused kernel and appends
// the probabilities to `maps`, one a call: float [B, heads, Q, K], before
// dropout, part of the autograd graph when gradients are on, even where no
// parameter is trained (for Grad-CAM take the gradient of a score with respect
// to a map). Clear `maps` after use: they keep the graph alive.
struct AttentionTap {
  bool enabled = false;
  std::vector<at::Tensor> maps;
};

struct AttentionOptions {
  bool bias = true;      // Of the query, key and value projections.
  double dropout = 0.0;  // Of the attention probabilities, in training mode.
};

// Softmax(q k^T / sqrt(d)) v.
//   q [B, H, Q, d], k and v [B, H, K, d], any strides with a dense last
//   dimension; result [B, H, Q, d].
//   mask: bool, true where a query may look; broadcastable to [B, H, Q, K];
//   undefined: everywhere. Not together with causal = true.
//   causal: query i sees keys 0..i.
//   bias: float, added to the scores; broadcastable to [B, H, Q, K] and of 4
//   dimensions; undefined: none.
at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& mask, bool causal, double dropout,
                  AttentionTap* tap = nullptr, const at::Tensor& bias = {});

// Every position looks at all others (or, causal, at those before it and
// itself). Parameters: qkv.{weight,bias} (rows: queries, keys, values),
// proj.{weight,bias}.
class SelfAttention : public torch::nn::Module {
 public:
  // `heads` divides `dim`.
  SelfAttention(int64_t dim, int64_t heads,
                const AttentionOptions& options = {});
  // x [B, N, dim] to [B, N, dim]. key_mask: bool [B, N], true at real tokens;
  // undefined: all are real. bias: as Attend's.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& key_mask = {},
                     bool causal = false, const at::Tensor& bias = {});
  AttentionTap& tap() { return tap_; }

 private:
  int64_t heads_;
  double dropout_;
  std::shared_ptr<Linear> qkv_, proj_;
  AttentionTap tap_;
};

// What cross-attention looks at. Each of the U rows is projected to keys and
// values once, however many of the B queries read it.
struct CrossMemory {
  at::Tensor values;  // float [U, M, kv_dim]
  at::Tensor mask;    // bool [U, M], true at real tokens; undefined: all.
  at::Tensor index;   // int64 [B], the row of `values` each query sequence
                      // reads; undefined: row b / (B / U), so that with U = B
                      // each reads its own and else B / U neighbours share
                      // one, which needs no copy of keys and values.
};

// Positions look at the tokens of another sequence. Parameters: q.{weight,
// bias}, kv.{weight,bias} (rows: keys, values), proj.{weight,bias}.
class CrossAttention : public torch::nn::Module {
 public:
  // With `share_kv` keys and values are projected by that layer's kv, which
  // stays its parameter alone; it must be of the same dimensions.
  CrossAttention(int64_t dim, int64_t heads, int64_t kv_dim,
                 const AttentionOptions& options = {},
                 const CrossAttention* share_kv = nullptr);
  // x [B, N, dim] to [B, N, dim].
  at::Tensor Forward(const at::Tensor& x, const CrossMemory& memory);
  AttentionTap& tap() { return tap_; }
  // Those of another layer that it computes with too; none without share_kv.
  std::vector<at::Tensor> SharedParameters() const;

 private:
  int64_t heads_;
  double dropout_;
  bool shares_kv_;
  std::shared_ptr<Linear> q_, kv_, proj_;
  AttentionTap tap_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_ATTENTION_H_
