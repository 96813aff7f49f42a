#include "objectives/semantic_codebook/prior.h"

#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include "core/objective/losses.h"

namespace semvq {

CodePrior::CodePrior(const PriorOptions& o) : grid_(o.grid) {
  vectors_ =
      register_module("vectors", std::make_shared<Linear>(o.vector_dim, o.dim));
  words_ = register_module("words",
                           std::make_shared<Embedding>(o.vocab_size, o.dim));
  code_position_ = register_module(
      "code_position", std::make_shared<PositionEmbedding>(o.grid, o.dim));
  word_position_ = register_module(
      "word_position",
      std::make_shared<PositionEmbedding>(Grid{1, o.max_tokens}, o.dim));
  TransformerOptions block;
  block.dim = o.dim;
  block.heads = o.heads;
  block.causal = o.causal;
  transformer_ = register_module(
      "transformer", std::make_shared<TransformerDecoder>(block, o.depth));
  torch::nn::ModuleList heads;
  for (int64_t codes : o.codes_per_group) {
    heads_.push_back(std::make_shared<Linear>(o.dim, codes));
    heads->push_back(heads_.back());
  }
  register_module("heads", heads);
  word_bias_ = register_parameter("word_bias", at::zeros({o.vocab_size}));
  const auto token = [this, &o](const char* name) {
    return register_parameter(name, TruncatedNormal(at::empty({o.dim})));
  };
  if (o.causal) {
    start_ = token("start");
  } else {
    hidden_code_ = token("hidden_code");
    hidden_word_ = token("hidden_word");
  }
}

at::Tensor CodePrior::EmbedCodes(const at::Tensor& vectors) const {
  return vectors_->Forward(vectors);
}

at::Tensor CodePrior::EmbedWords(const at::Tensor& ids) const {
  return words_->Forward(ids);
}

std::vector<at::Tensor> CodePrior::CodeLogits(const at::Tensor& x) const {
  std::vector<at::Tensor> logits;
  for (const auto& head : heads_) logits.push_back(head->Forward(x));
  return logits;
}

at::Tensor CodePrior::WordLogits(const at::Tensor& x) const {
  return LinearOp(x, words_->weight, word_bias_);
}

at::Tensor CodePrior::Hide(const at::Tensor& x, const at::Tensor& positions,
                           const at::Tensor& token) {
  const at::Tensor hidden =
      at::zeros({x.size(0), x.size(1)}, x.options().dtype(at::kBool))
          .scatter_(1, positions, true);
  return at::where(hidden.unsqueeze(-1), token.to(x.scalar_type()), x);
}

at::Tensor CodePrior::FillIn(const at::Tensor& codes, const at::Tensor& words,
                             const at::Tensor& word_mask) {
  const int64_t batch = codes.size(0), length = words.size(1);
  const at::Tensor x =
      at::cat({codes + code_position_->Forward(grid_),
               words + word_position_->weight.narrow(1, 0, length)},
              1);
  const at::Tensor mask = at::cat(
      {at::ones({batch, codes.size(1)}, word_mask.options()), word_mask}, 1);
  return transformer_->Forward(x, mask);
}

std::vector<at::Tensor> CodePrior::HiddenCodes(const at::Tensor& vectors,
                                               const Words& words,
                                               const at::Tensor& positions) {
  const at::Tensor x =
      FillIn(Hide(EmbedCodes(vectors), positions, hidden_code_),
             EmbedWords(words.ids), words.mask);
  return CodeLogits(GatherPositions(x, positions));
}

at::Tensor CodePrior::HiddenWords(const at::Tensor& vectors, const Words& words,
                                  const at::Tensor& positions) {
  const at::Tensor x =
      FillIn(EmbedCodes(vectors),
             Hide(EmbedWords(words.ids), positions, hidden_word_), words.mask);
  return WordLogits(GatherPositions(x, positions + vectors.size(1)));
}

PriorLogits CodePrior::Sequence(const at::Tensor& vectors, const Words& words) {
  const int64_t batch = vectors.size(0), codes = vectors.size(1);
  const int64_t length = words.ids.size(1);
  // Position t sees what precedes it: the start, the codes, all words but the
  // last. Padding follows the words, so no real word sees it.
  const at::Tensor seen_words = EmbedWords(words.ids.narrow(1, 1, length - 2)) +
                                word_position_->weight.narrow(1, 1, length - 2);
  const at::Tensor seen_codes =
      EmbedCodes(vectors) + code_position_->Forward(grid_);
  const at::Tensor start =
      start_.to(seen_codes.scalar_type()).expand({batch, 1, start_.size(0)});
  const at::Tensor x =
      transformer_->Forward(at::cat({start, seen_codes, seen_words}, 1));
  PriorLogits out;
  out.codes = CodeLogits(x.narrow(1, 0, codes));
  out.words = WordLogits(x.narrow(1, codes, length - 1));
  return out;
}

}  // namespace semvq
