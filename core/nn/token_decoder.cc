#include "core/nn/token_decoder.h"

#include <torch/types.h>

namespace semvq {

TokenDecoder::TokenDecoder(const TokenDecoderOptions& options)
    : grid_(options.grid) {
  embed_ = register_module(
      "embed", std::make_shared<Linear>(options.token_dim, options.dim));
  position_ = register_module("position", std::make_shared<PositionEmbedding>(
                                              options.grid, options.dim));
  TransformerOptions block;
  block.dim = options.dim;
  block.heads = options.heads;
  block.cross_dim = options.text_dim;
  transformer_ = register_module(
      "transformer",
      std::make_shared<TransformerDecoder>(block, options.depth));
  head_ = register_module("head",
                          std::make_shared<Linear>(options.dim, options.out));
}

at::Tensor TokenDecoder::Forward(const at::Tensor& tokens,
                                 const CrossMemory* text) {
  TORCH_CHECK(tokens.size(1) == grid_.height * grid_.width,
              "token decoder: got ", tokens.size(1),
              " tokens an image, expected a grid of ", grid_.height, " x ",
              grid_.width, "; set patch_size to the image encoder's");
  const at::Tensor x = embed_->Forward(tokens) + position_->Forward(grid_);
  if (text == nullptr) return head_->Forward(transformer_->Forward(x));
  return head_->Forward(transformer_->Forward(x, {}, {text, 1}));
}

}  // namespace semvq
