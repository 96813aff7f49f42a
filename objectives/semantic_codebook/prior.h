// Models of p(y, z) over a caption's words y and an image's codes z. They read
// nothing else.
#ifndef SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_PRIOR_H_
#define SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_PRIOR_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/nn/position.h"
#include "core/nn/transformer.h"

namespace semvq {

struct PriorOptions {
  std::vector<int64_t> codes_per_group;
  int64_t vector_dim = 0;  // Of the codes' vectors.
  int64_t vocab_size = 0;
  int64_t max_tokens = 0;  // Static length of a text.
  Grid grid;
  int64_t dim = 256;
  int64_t depth = 2;
  int64_t heads = 4;
  bool causal = false;
};

// What a caption is made of. Token 0 is [CLS], which is given, not predicted.
struct Words {
  at::Tensor ids;   // int64 [B, L]
  at::Tensor mask;  // bool [B, L], true at real tokens.
};

struct PriorLogits {
  std::vector<at::Tensor> codes;  // a group each: [B, M, K_g]
  at::Tensor words;               // [B, M, V]
};

// A pre-norm transformer over the sequence of N codes, row by row, and L words.
// A code enters as a linear map of its vector, a word as its embedding, which
// is also the classifier's matrix. Parameters: vectors.*, words.weight,
// code_position.weight, word_position.weight, transformer.*, heads.<group>.*,
// word_bias; start (causal), or hidden_code and hidden_word.
class CodePrior : public torch::nn::Module {
 public:
  explicit CodePrior(const PriorOptions& options);

  // Not causal: what is hidden at positions int64 [B, M], given all else.
  //   vectors [B, N, vector_dim]; positions among the N codes, or the L words.
  std::vector<at::Tensor> HiddenCodes(const at::Tensor& vectors,
                                      const Words& words,
                                      const at::Tensor& positions);
  at::Tensor HiddenWords(const at::Tensor& vectors, const Words& words,
                         const at::Tensor& positions);

  // Causal: every code given those before it, [B, N, K_g], and words 1 to L - 1
  // given all codes and the words before, [B, L - 1, V].
  PriorLogits Sequence(const at::Tensor& vectors, const Words& words);

 private:
  at::Tensor EmbedCodes(const at::Tensor& vectors) const;
  at::Tensor EmbedWords(const at::Tensor& ids) const;
  std::vector<at::Tensor> CodeLogits(const at::Tensor& x) const;
  at::Tensor WordLogits(const at::Tensor& x) const;
  // Where a position is among `positions`, `token`; else x. [B, T, dim].
  static at::Tensor Hide(const at::Tensor& x, const at::Tensor& positions,
                         const at::Tensor& token);
  at::Tensor FillIn(const at::Tensor& codes, const at::Tensor& words,
                    const at::Tensor& word_mask);

  const Grid grid_;
  std::shared_ptr<Linear> vectors_;
  std::shared_ptr<Embedding> words_;
  std::shared_ptr<PositionEmbedding> code_position_, word_position_;
  std::shared_ptr<TransformerDecoder> transformer_;
  std::vector<std::shared_ptr<Linear>> heads_;
  at::Tensor word_bias_, start_, hidden_code_, hidden_word_;
};

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_PRIOR_H_
