// A causal text decoder that reads other tokens by cross-attention: answers
// [ALBEF, Li et al. 2021], captions.
#ifndef SEMVQ_CORE_NN_TEXT_DECODER_H_
#define SEMVQ_CORE_NN_TEXT_DECODER_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "core/nn/attention.h"
#include "core/nn/layers.h"
#include "core/nn/transformer.h"
#include "core/plugin/field_errors.h"
#include "protos/text_decoder.pb.h"

namespace semvq {

// Adds what is wrong with `config`, the plugin's field `decoder`.
void ValidateTextDecoder(const TextDecoderConfig& config, FieldErrors* errors);

// OK, or what does not fit a decoder that attends to tokens of dimension
// `memory_dim` (unknown: 0) and writes a vocabulary of `vocab_size`.
absl::Status CheckTextDecoder(const TextDecoderConfig& config,
                              int64_t memory_dim, int64_t vocab_size,
                              const std::string& instance);

// Parameters: embeddings.{word_embeddings,position_embeddings,
// token_type_embeddings,LayerNorm}, layer.<i>, head.{dense,norm} and
// head.decoder, or with tied embeddings head.bias.
class TextDecoder : public torch::nn::Module {
 public:
  // CheckTextDecoder must hold.
  TextDecoder(const TextDecoderConfig& config, int64_t memory_dim,
              int64_t vocab_size);

  // ids int64 [R, L] to [R, L, D]: position i has read ids 0 to i and the
  // memory. No mask: padding stands at the end, where nothing that counts
  // looks.
  at::Tensor Hidden(const at::Tensor& ids, const CrossMemory& memory);
  // [..., D] to [..., V].
  at::Tensor Logits(const at::Tensor& hidden) const;

  int64_t max_positions() const { return position_->weight.size(0); }

 private:
  double dropout_;
  std::shared_ptr<Embedding> word_, position_, type_;
  std::shared_ptr<LayerNorm> embedding_norm_, head_norm_;
  std::shared_ptr<BlockStack> layers_;
  std::shared_ptr<Linear> dense_, decoder_;  // decoder_: null where tied.
  at::Tensor bias_;                          // Where tied.
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_TEXT_DECODER_H_
