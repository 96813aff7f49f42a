#include "core/nn/transformer.h"

#include <torch/types.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/nn/recompute.h"

namespace semvq {
namespace {

// Drops the whole branch of a sample with probability p.
at::Tensor DropPath(const at::Tensor& branch, double p, bool training) {
  if (!training || p <= 0.0) return branch;
  std::vector<int64_t> shape(branch.dim(), 1);
  shape[0] = branch.size(0);
  const at::Tensor keep =
      at::empty(shape, branch.options()).bernoulli_(1.0 - p).div_(1.0 - p);
  return branch * keep;
}

// block.Forward(x, ...), computed again in the backward. Masks and indices need
// no gradient: they are kept as they are.
at::Tensor ForwardAgain(TransformerBlock& block, const at::Tensor& x,
                        const at::Tensor& key_mask,
                        absl::Span<const CrossMemory> memories,
                        const at::Tensor& bias) {
  std::vector<at::Tensor> inputs = {x};
  std::vector<CrossMemory> others(memories.begin(), memories.end());
  for (CrossMemory& memory : others) {
    inputs.push_back(memory.values);
    memory.values = at::Tensor();
  }
  if (bias.defined()) inputs.push_back(bias);
  const auto forward = [&block, key_mask, others, biased = bias.defined()](
                           const std::vector<at::Tensor>& in) {
    std::vector<CrossMemory> read = others;
    for (size_t i = 0; i < read.size(); ++i) read[i].values = in[1 + i];
    return block.Forward(in[0], key_mask, read,
                         biased ? in.back() : at::Tensor());
  };
  return Recompute(forward, inputs, block.UsedParameters());
}

}  // namespace

TransformerBlock::TransformerBlock(const TransformerOptions& options,
                                   const CrossAttention* share_kv)
    : options_(options) {
  const int64_t dim = options.dim;
  const int64_t hidden = options.hidden > 0 ? options.hidden : 4 * dim;
  const AttentionOptions attention{options.qkv_bias, options.attention_dropout};
  norm1_ =
      register_module("norm1", std::make_shared<LayerNorm>(dim, options.eps));
  attn_ = register_module(
      "attn", std::make_shared<SelfAttention>(dim, options.heads, attention));
  if (options.cross_dim > 0) {
    norm_cross_ = register_module(
        "norm_cross", std::make_shared<LayerNorm>(dim, options.eps));
    cross_attn_ = register_module(
        "cross_attn",
        std::make_shared<CrossAttention>(dim, options.heads, options.cross_dim,
                                         attention, share_kv));
  }
  norm2_ =
      register_module("norm2", std::make_shared<LayerNorm>(dim, options.eps));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(dim, hidden));
  if (options.layer_scale > 0.0) {
    const auto scale = [&](const char* name) {
      return register_module(
          name, std::make_shared<LayerScale>(dim, options.layer_scale));
    };
    ls1_ = scale("ls1");
    if (options.cross_dim > 0) ls_cross_ = scale("ls_cross");
    ls2_ = scale("ls2");
  }
}

std::vector<at::Tensor> TransformerBlock::UsedParameters() const {
  std::vector<at::Tensor> used = parameters();
  if (cross_attn_ != nullptr) {
    for (const at::Tensor& p : cross_attn_->SharedParameters())
      used.push_back(p);
  }
  return used;
}

at::Tensor TransformerBlock::Residual(const at::Tensor& x, at::Tensor branch,
                                      const LayerScale* scale) const {
  branch = Dropout(branch, options_.dropout, is_training());
  if (scale != nullptr) branch = scale->Forward(branch);
  return x + DropPath(branch, options_.drop_path, is_training());
}

at::Tensor TransformerBlock::Forward(const at::Tensor& x,
                                     const at::Tensor& key_mask,
                                     absl::Span<const CrossMemory> memories,
                                     const at::Tensor& bias) {
  TORCH_CHECK(memories.empty() || cross_attn_ != nullptr,
              "transformer block: memories given, but it was made without "
              "cross-attention (cross_dim is 0)");
  at::Tensor h = x;
  if (options_.pre_norm) {
    h = Residual(
        h, attn_->Forward(norm1_->Forward(h), key_mask, options_.causal, bias),
        ls1_.get());
    for (const CrossMemory& memory : memories)
      h = Residual(h, cross_attn_->Forward(norm_cross_->Forward(h), memory),
                   ls_cross_.get());
    return Residual(h, mlp_->Forward(norm2_->Forward(h)), ls2_.get());
  }
  h = norm1_->Forward(Residual(
      h, attn_->Forward(h, key_mask, options_.causal, bias), ls1_.get()));
  for (const CrossMemory& memory : memories)
    h = norm_cross_->Forward(
        Residual(h, cross_attn_->Forward(h, memory), ls_cross_.get()));
  return norm2_->Forward(Residual(h, mlp_->Forward(h), ls2_.get()));
}

BlockStack::BlockStack(const TransformerOptions& options, int64_t depth,
                       BlockStack* share_kv)
    : recompute_(options.recompute) {
  TORCH_CHECK(share_kv == nullptr || share_kv->depth() == depth,
              "block stack: keys and values of ",
              share_kv == nullptr ? 0 : share_kv->depth(),
              " blocks cannot be shared by ", depth);
  for (int64_t i = 0; i < depth; ++i) {
    TransformerOptions block = options;
    block.drop_path = options.drop_path * i / std::max<int64_t>(depth - 1, 1);
    blocks_.push_back(register_module(
        std::to_string(i),
        std::make_shared<TransformerBlock>(
            block,
            share_kv == nullptr ? nullptr : share_kv->block(i).cross_attn())));
  }
}

at::Tensor BlockStack::Forward(at::Tensor x, const at::Tensor& key_mask,
                               absl::Span<const CrossMemory> memories,
                               absl::Span<const at::Tensor> biases) {
  TORCH_CHECK(biases.size() <= 1 || biases.size() == blocks_.size(),
              "block stack: ", biases.size(), " attention biases for ",
              blocks_.size(), " blocks");
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const at::Tensor bias = biases.empty()       ? at::Tensor()
                            : biases.size() == 1 ? biases[0]
                                                 : biases[i];
    x = ForwardBlock(static_cast<int64_t>(i), x, key_mask, memories, bias);
  }
  return x;
}

at::Tensor BlockStack::ForwardBlock(int64_t i, const at::Tensor& x,
                                    const at::Tensor& key_mask,
                                    absl::Span<const CrossMemory> memories,
                                    const at::Tensor& bias) {
  TransformerBlock& block = this->block(i);
  // A tapped block's maps must stay in the graph.
  CrossAttention* cross = block.cross_attn();
  const bool tapped =
      block.attn().tap().enabled || (cross != nullptr && cross->tap().enabled);
  return recompute_ && is_training() && !tapped
             ? ForwardAgain(block, x, key_mask, memories, bias)
             : block.Forward(x, key_mask, memories, bias);
}

TransformerDecoder::TransformerDecoder(const TransformerOptions& options,
                                       int64_t depth) {
  TORCH_CHECK(options.pre_norm, "TransformerDecoder is pre-norm");
  blocks_ =
      register_module("blocks", std::make_shared<BlockStack>(options, depth));
  norm_ = register_module(
      "norm", std::make_shared<LayerNorm>(options.dim, options.eps));
}

at::Tensor TransformerDecoder::Forward(const at::Tensor& x,
                                       const at::Tensor& key_mask,
                                       absl::Span<const CrossMemory> memories) {
  return norm_->Forward(blocks_->Forward(x, key_mask, memories));
}

}  // namespace semvq
