// Transformer blocks: pre-norm (ViT, decoders) and post-norm (BERT), with or
// without cross-attention.
#ifndef SEMVQ_CORE_NN_TRANSFORMER_H_
#define SEMVQ_CORE_NN_TRANSFORMER_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "core/nn/attention.h"
#include "core/nn/layers.h"

namespace semvq {

struct TransformerOptions {
  int64_t dim = 768;
  int64_t heads = 12;
  int64_t hidden = 0;     // Of the MLP; 0: 4 * dim.
  int64_t cross_dim = 0;  // Dimension of the memories; 0: no cross-attention.
  bool pre_norm = true;   // x + f(norm(x)), else norm(x + f(x)).
  bool causal = false;    // Self-attention looks back only.
  bool qkv_bias = true;
  double eps = 1e-6;               // Of the layer norms.
  double dropout = 0.0;            // Of each sublayer's output.
  double attention_dropout = 0.0;  // Of the attention probabilities.
  // Stochastic depth [Huang et al. 2016]: probability that a sample skips a
  // sublayer in training. In a BlockStack it grows linearly from 0 at the first
  // block to this at the last.
  double drop_path = 0.0;
  // In training a BlockStack keeps the inputs of its blocks alone and computes
  // each block again in the backward; see recompute.h.
  bool recompute = false;
  double layer_scale = 0.0;  // Start of each sublayer's LayerScale; 0: none.
};

// Self-attention, cross-attention to each memory in order (with one set of
// weights), MLP; each with its residual and layer norm. A pure function of its
// arguments and the parameters (and the default generator, with dropout).
// Parameters: norm1, attn.{qkv,proj}, [norm_cross, cross_attn.{q,kv,proj},]
// norm2, mlp.{fc1,fc2}, [ls1, [ls_cross,] ls2].
class TransformerBlock : public torch::nn::Module {
 public:
  // `share_kv`: as CrossAttention's; null: keys and values of its own.
  explicit TransformerBlock(const TransformerOptions& options,
                            const CrossAttention* share_kv = nullptr);
  // x [B, N, dim] to [B, N, dim]. key_mask: bool [B, N], true at real tokens;
  // undefined: all. `memories` must be empty without cross-attention; with it,
  // none means that the sublayer is skipped. bias: of the self-attention's
  // scores, [1, heads, N, N]; undefined: none.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& key_mask = {},
                     absl::Span<const CrossMemory> memories = {},
                     const at::Tensor& bias = {});

  SelfAttention& attn() { return *attn_; }
  CrossAttention* cross_attn() { return cross_attn_.get(); }  // May be null.
  // All it computes with, another block's keys and values included.
  std::vector<at::Tensor> UsedParameters() const;

 private:
  // scale: may be null.
  at::Tensor Residual(const at::Tensor& x, at::Tensor branch,
                      const LayerScale* scale) const;

  TransformerOptions options_;
  std::shared_ptr<LayerNorm> norm1_, norm_cross_, norm2_;
  std::shared_ptr<SelfAttention> attn_;
  std::shared_ptr<CrossAttention> cross_attn_;
  std::shared_ptr<Mlp> mlp_;
  std::shared_ptr<LayerScale> ls1_, ls_cross_, ls2_;
};

// `depth` blocks, registered as "0", "1", ...: under the name "blocks" their
// parameters are named as in timm.
class BlockStack : public torch::nn::Module {
 public:
  // With `share_kv`, a stack of the same depth, each block projects keys and
  // values as that one's block does, with the same parameters.
  BlockStack(const TransformerOptions& options, int64_t depth,
             BlockStack* share_kv = nullptr);
  // biases: one a block, or one for all, or none.
  at::Tensor Forward(at::Tensor x, const at::Tensor& key_mask = {},
                     absl::Span<const CrossMemory> memories = {},
                     absl::Span<const at::Tensor> biases = {});
  // Block `i` alone, recomputed in the backward where the stack's are.
  at::Tensor ForwardBlock(int64_t i, const at::Tensor& x,
                          const at::Tensor& key_mask = {},
                          absl::Span<const CrossMemory> memories = {},
                          const at::Tensor& bias = {});

  int64_t depth() const { return static_cast<int64_t>(blocks_.size()); }
  TransformerBlock& block(int64_t i) { return *blocks_.at(i); }

 private:
  const bool recompute_;
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
};

// A pre-norm stack with a final layer norm: answers and captions (causal),
// reconstruction from codes and captions, masked prediction fused with text.
// Parameters: blocks.<i>..., norm.
class TransformerDecoder : public torch::nn::Module {
 public:
  // `options.pre_norm` must be true.
  TransformerDecoder(const TransformerOptions& options, int64_t depth);
  // As BlockStack::Forward; embeddings and positions are the caller's.
  at::Tensor Forward(const at::Tensor& x, const at::Tensor& key_mask = {},
                     absl::Span<const CrossMemory> memories = {});

  BlockStack& blocks() { return *blocks_; }

 private:
  std::shared_ptr<BlockStack> blocks_;
  std::shared_ptr<LayerNorm> norm_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_TRANSFORMER_H_
