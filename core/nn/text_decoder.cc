#include "core/nn/text_decoder.h"

#include <torch/types.h>

#include "absl/strings/str_cat.h"

namespace semvq {

void ValidateTextDecoder(const TextDecoderConfig& config, FieldErrors* errors) {
  // So many are built one by one; a typing error must not take all memory.
  errors->Require(config.depth() > 0 && config.depth() <= 1000, "decoder.depth",
                  config.depth(), "1 to 1000");
  errors->RequirePositive("decoder.heads", config.heads());
  errors->RequireNotNegative("decoder.dim", config.dim());
  errors->RequireDivisor("decoder.heads", config.heads(), "decoder.dim",
                         config.dim());
  errors->RequireNotNegative("decoder.intermediate", config.intermediate());
  errors->Require(config.max_positions() > 1, "decoder.max_positions",
                  config.max_positions(), "2 or more");
  errors->RequirePositive("decoder.token_types", config.token_types());
  errors->RequirePositive("decoder.layer_norm_eps", config.layer_norm_eps());
  errors->RequireProbability("decoder.dropout", config.dropout());
  errors->RequireProbability("decoder.attention_dropout",
                             config.attention_dropout());
}

absl::Status CheckTextDecoder(const TextDecoderConfig& config,
                              int64_t memory_dim, int64_t vocab_size,
                              const std::string& instance) {
  if (memory_dim <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(instance,
                     ": the dimension of the tokens that the decoder attends "
                     "to is unknown; name an instance that provides them"));
  }
  if (vocab_size <= 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        instance,
        ": a decoder needs a tokenizer, and the experiment has no `text`"));
  }
  const int64_t dim = config.dim() > 0 ? config.dim() : memory_dim;
  if (dim % config.heads() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(instance, ": decoder.heads ", config.heads(),
                     " does not divide the width ", dim));
  }
  return absl::OkStatus();
}

TextDecoder::TextDecoder(const TextDecoderConfig& config, int64_t memory_dim,
                         int64_t vocab_size)
    : dropout_(config.dropout()) {
  const int64_t dim = config.dim() > 0 ? config.dim() : memory_dim;
  const double eps = config.layer_norm_eps();
  const auto embeddings =
      register_module("embeddings", std::make_shared<torch::nn::Module>());
  const auto embed = [&](const char* name, int64_t rows) {
    return embeddings->register_module(name,
                                       std::make_shared<Embedding>(rows, dim));
  };
  word_ = embed("word_embeddings", vocab_size);
  position_ = embed("position_embeddings", config.max_positions());
  type_ = embed("token_type_embeddings", config.token_types());
  embedding_norm_ = embeddings->register_module(
      "LayerNorm", std::make_shared<LayerNorm>(dim, eps));

  TransformerOptions options;
  options.dim = dim;
  options.heads = config.heads();
  options.hidden = config.intermediate();
  options.cross_dim = memory_dim;
  options.pre_norm = false;
  options.causal = true;
  options.eps = eps;
  options.dropout = config.dropout();
  options.attention_dropout = config.attention_dropout();
  options.recompute = config.activation_checkpointing();
  layers_ = register_module(
      "layer", std::make_shared<BlockStack>(options, config.depth()));

  const auto head =
      register_module("head", std::make_shared<torch::nn::Module>());
  dense_ = head->register_module("dense", std::make_shared<Linear>(dim, dim));
  head_norm_ =
      head->register_module("norm", std::make_shared<LayerNorm>(dim, eps));
  if (config.tie_embeddings()) {
    bias_ = head->register_parameter("bias", at::zeros({vocab_size}));
  } else {
    decoder_ = head->register_module("decoder",
                                     std::make_shared<Linear>(dim, vocab_size));
  }
}

at::Tensor TextDecoder::Hidden(const at::Tensor& ids,
                               const CrossMemory& memory) {
  TORCH_CHECK(ids.dim() == 2 && ids.size(1) <= max_positions(),
              "text decoder: ids must be [R, L] with L at most max_positions ",
              max_positions(), ", got ", ids.sizes());
  const at::Tensor rows =
      position_->weight.narrow(0, 0, ids.size(1)) + type_->weight.select(0, 0);
  const at::Tensor x =
      Dropout(embedding_norm_->Forward(word_->Forward(ids) + rows), dropout_,
              is_training());
  return layers_->Forward(x, {}, {&memory, 1});
}

at::Tensor TextDecoder::Logits(const at::Tensor& hidden) const {
  const at::Tensor x = head_norm_->Forward(at::gelu(dense_->Forward(hidden)));
  return decoder_ != nullptr ? decoder_->Forward(x)
                             : LinearOp(x, word_->weight, bias_);
}

}  // namespace semvq
