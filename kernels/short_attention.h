// Attention over few keys in bfloat16 on a CPU, forward and backward, without a
// map in memory: scores, softmax and products of one head of one sequence stay
// in its core's cache.
#ifndef SEMVQ_KERNELS_SHORT_ATTENTION_H_
#define SEMVQ_KERNELS_SHORT_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace semvq {

inline constexpr int64_t kMostShortKeys = 128;

// Whether the two functions below can run: a processor with AVX512_BF16, at
// most kMostShortKeys keys, and heads of a multiple of 16, up to 128
// dimensions.
bool HasShortAttention(int64_t keys, int64_t head_dim);

// softmax(q k^T / sqrt(d)) v of every head, [B, Q, H * d], bfloat16, dense.
// Scores, softmax and sums are float32; probabilities are rounded to bfloat16
// for the product with v. Differentiable once; the backward computes the
// probabilities again from one float a query. The result is the same bit by bit
// for any number of threads.
//   qkv: bfloat16 [B, N, 3, H, d], queries, keys and values of each token.
//   key_mask: bool [B, N], true where a key may be seen; undefined: everywhere.
//   A sequence of which no key may be seen gets NaN, as from at::softmax.
// Throws c10::Error on other shapes or types and where HasShortAttention is
// false.
at::Tensor ShortSelfAttention(const at::Tensor& qkv,
                              const at::Tensor& key_mask);

// The same of queries that look at the tokens of another sequence.
//   q: bfloat16 [B, Q, H, d], kv: bfloat16 [B, M, 2, H, d], key_mask [B, M].
at::Tensor ShortCrossAttention(const at::Tensor& q, const at::Tensor& kv,
                               const at::Tensor& key_mask);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_SHORT_ATTENTION_H_
