#include "encoders/bert_text/bert_text.h"

#include <torch/types.h>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/layers.h"
#include "core/nn/transformer.h"
#include "core/plugin/encoder.h"
#include "core/plugin/field_errors.h"

namespace semvq {
namespace {

// Sum of token, position and type embeddings, normalised. Names as in Hugging
// Face's BERT.
class BertEmbeddings : public torch::nn::Module {
 public:
  BertEmbeddings(const BertTextConfig& config, int64_t vocab_size)
      : dropout_(config.dropout()) {
    const int64_t dim = config.dim();
    word_ = register_module("word_embeddings",
                            std::make_shared<Embedding>(vocab_size, dim));
    position_ = register_module(
        "position_embeddings",
        std::make_shared<Embedding>(config.max_positions(), dim));
    type_ =
        register_module("token_type_embeddings",
                        std::make_shared<Embedding>(config.token_types(), dim));
    norm_ = register_module(
        "LayerNorm", std::make_shared<LayerNorm>(dim, config.layer_norm_eps()));
  }

  at::Tensor Forward(const at::Tensor& ids) const {
    const at::Tensor rows = position_->weight.narrow(0, 0, ids.size(1)) +
                            type_->weight.select(0, 0);
    return Dropout(norm_->Forward(word_->Forward(ids) + rows), dropout_,
                   is_training());
  }

  int64_t max_positions() const { return position_->weight.size(0); }

 private:
  double dropout_;
  std::shared_ptr<Embedding> word_, position_, type_;
  std::shared_ptr<LayerNorm> norm_;
};

class BertText : public TextEncoder {
 public:
  BertText(const BertTextConfig& config, int64_t vocab_size)
      : dim_(config.dim()) {
    embeddings_ = register_module(
        "embeddings", std::make_shared<BertEmbeddings>(config, vocab_size));
    TransformerOptions options;
    options.dim = dim_;
    options.heads = config.heads();
    options.hidden = config.intermediate();
    options.pre_norm = false;
    options.eps = config.layer_norm_eps();
    options.dropout = config.dropout();
    options.attention_dropout = config.attention_dropout();
    options.recompute = config.activation_checkpointing();
    layers_ = register_module(
        "layer", std::make_shared<BlockStack>(options, config.layers()));
  }

  Tokens Encode(const TextInput& input) override {
    TORCH_CHECK(input.ids.dim() == 2 &&
                    input.ids.size(1) <= embeddings_->max_positions(),
                "bert_text: ids must be [T, L] with L at most max_positions ",
                embeddings_->max_positions(), ", got ", input.ids.sizes());
    Tokens tokens;
    tokens.values =
        layers_->Forward(embeddings_->Forward(input.ids), input.mask);
    tokens.mask = input.mask;
    tokens.has_cls = true;
    return tokens;
  }

  int64_t dim() const override { return dim_; }

 private:
  int64_t dim_;
  std::shared_ptr<BertEmbeddings> embeddings_;
  std::shared_ptr<BlockStack> layers_;
};

}  // namespace

absl::Status ValidateBertText(const BertTextConfig& config) {
  FieldErrors errors;
  errors.RequirePositive("dim", config.dim());
  errors.RequirePositive("layers", config.layers());
  // So many are built one by one; a typing error must not take all memory.
  errors.Require(config.layers() <= 1000, "layers", config.layers(),
                 "at most 1000");
  errors.RequirePositive("heads", config.heads());
  errors.RequireDivisor("heads", config.heads(), "dim", config.dim());
  errors.RequireNotNegative("intermediate", config.intermediate());
  errors.RequireNotNegative("vocab_size", config.vocab_size());
  errors.RequirePositive("max_positions", config.max_positions());
  errors.RequirePositive("token_types", config.token_types());
  errors.RequirePositive("layer_norm_eps", config.layer_norm_eps());
  errors.RequireProbability("dropout", config.dropout());
  errors.RequireProbability("attention_dropout", config.attention_dropout());
  return errors.status();
}

Contract BertTextContract(const std::string& /*instance*/,
                          const BertTextConfig& config,
                          const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kTokens, config.dim()}};
  contract.batch_keys = {"text"};
  return contract;
}

absl::StatusOr<std::shared_ptr<TextEncoder>> MakeBertText(
    const BertTextConfig& config, const PluginContext& context) {
  if (absl::Status status = ValidateBertText(config); !status.ok())
    return status;
  if (config.vocab_size() == 0 && context.vocab_size == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder ", context.instance,
        ": the vocabulary's size is unknown; configure a tokenizer (text) or "
        "set vocab_size"));
  }
  if (config.vocab_size() > 0 && config.vocab_size() < context.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder ", context.instance, ": vocab_size ", config.vocab_size(),
        " is smaller than the tokenizer's vocabulary of ", context.vocab_size,
        "; raise it, or leave it unset"));
  }
  if (context.book != nullptr &&
      context.book->max_tokens > config.max_positions()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "encoder ", context.instance, ": texts have ", context.book->max_tokens,
        " tokens (text.max_tokens), more than ", "max_positions ",
        config.max_positions()));
  }
  return std::make_shared<BertText>(config, config.vocab_size() > 0
                                                ? config.vocab_size()
                                                : context.vocab_size);
}

}  // namespace semvq
