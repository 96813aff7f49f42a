// A decoder from a grid of quantised tokens to a vector for each of them
// (pixels of the patch, features), which may read a text.
#ifndef SEMVQ_CORE_NN_TOKEN_DECODER_H_
#define SEMVQ_CORE_NN_TOKEN_DECODER_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/nn/position.h"
#include "core/nn/transformer.h"

namespace semvq {

struct TokenDecoderOptions {
  int64_t token_dim = 0;  // Of the tokens that are decoded.
  int64_t out = 0;        // Of the vectors they are decoded to.
  Grid grid;
  int64_t dim = 256;
  int64_t depth = 2;
  int64_t heads = 4;
  int64_t text_dim = 0;  // Of the text that is read; 0: none.
};

// Embedding and positions, a pre-norm transformer, a linear head. Parameters:
// embed.*, position.weight, transformer.{blocks.<i>,norm}.*, head.*.
class TokenDecoder : public torch::nn::Module {
 public:
  explicit TokenDecoder(const TokenDecoderOptions& options);
  // tokens [B, N, token_dim] to [B, N, out]. `text` must be there exactly if
  // text_dim is not 0. Throws c10::Error when N is not the grid's.
  at::Tensor Forward(const at::Tensor& tokens, const CrossMemory* text);

 private:
  const Grid grid_;
  std::shared_ptr<Linear> embed_, head_;
  std::shared_ptr<PositionEmbedding> position_;
  std::shared_ptr<TransformerDecoder> transformer_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_TOKEN_DECODER_H_
