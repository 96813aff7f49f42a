#include "encoders/bert_text/bert_text.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <set>
#include <vector>

#include "core/plugin/encoder.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 16, kVocabulary = 50;

BertTextConfig SmallConfig() {
  BertTextConfig config;
  config.set_dim(kDim);
  config.set_layers(2);
  config.set_heads(2);
  config.set_max_positions(12);
  return config;
}

std::shared_ptr<TextEncoder> Make(const BertTextConfig& config,
                                  uint64_t seed = 1) {
  torch::manual_seed(seed);
  PluginContext context;
  context.instance = "text";
  context.vocab_size = kVocabulary;
  absl::StatusOr<std::shared_ptr<TextEncoder>> made =
      MakeBertText(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->eval();
  return *made;
}

TextInput Texts() {
  torch::manual_seed(21);
  TextInput input{at::randint(4, kVocabulary, {3, 7}, at::kLong),
                  at::ones({3, 7}, at::kBool)};
  input.mask[1].narrow(0, 4, 3).fill_(false);
  return input;
}

TEST(BertTextTest, EncodesToTokens) {
  const Tokens tokens = Make(SmallConfig())->Encode(Texts());
  EXPECT_EQ(tokens.values.sizes().vec(), (std::vector<int64_t>{3, 7, kDim}));
  EXPECT_TRUE(at::equal(tokens.mask, Texts().mask));
  EXPECT_TRUE(tokens.has_cls);
  EXPECT_EQ(tokens.grid.height, 0);
  // Post-norm: every token is normalised.
  EXPECT_LT(tokens.values.mean(-1).abs().max().item<double>(), 1e-5);
  EXPECT_NEAR(tokens.values.pow(2).mean().item<double>(), 1.0, 1e-3);
}

TEST(BertTextTest, PaddingDoesNotChangeRealTokens) {
  auto bert = Make(SmallConfig());
  const TextInput texts = Texts();
  const at::Tensor plain = bert->Encode(texts).values;
  // Other ids under the padding, and more of it.
  TextInput padded{at::full({3, 12}, 3, at::kLong),
                   at::zeros({3, 12}, at::kBool)};
  padded.ids.narrow(1, 0, 7).copy_(texts.ids);
  padded.ids[1].narrow(0, 4, 3).fill_(9);
  padded.mask.narrow(1, 0, 7).copy_(texts.mask);
  const at::Tensor longer = bert->Encode(padded).values.narrow(1, 0, 7);
  const at::Tensor real = texts.mask.unsqueeze(-1);
  EXPECT_LT(((plain - longer) * real).abs().max().item<double>(), 1e-5);
  // Real tokens do matter.
  TextInput other = Texts();
  other.ids[1][3] = other.ids[1][3].item<int64_t>() == 5 ? 6 : 5;
  EXPECT_GT((bert->Encode(other).values[1][0] - plain[1][0])
                .abs()
                .max()
                .item<double>(),
            1e-4);
}

TEST(BertTextTest, OrderMatters) {
  auto bert = Make(SmallConfig());
  TextInput input{at::tensor({1, 7, 8, 2}, at::kLong).view({1, 4}), {}};
  const at::Tensor cls = bert->Encode(input).values[0][0];
  input.ids = at::tensor({1, 8, 7, 2}, at::kLong).view({1, 4});
  EXPECT_GT((bert->Encode(input).values[0][0] - cls).abs().max().item<double>(),
            1e-5);
}

TEST(BertTextTest, EveryParameterGetsAGradient) {
  auto bert = Make(SmallConfig());
  bert->train();
  const at::Tensor values = bert->Encode(Texts()).values;
  (values * at::randn_like(values)).sum().backward();
  for (const auto& p : bert->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<double>(), 0.0) << p.key();
  }
}

TEST(BertTextTest, SameSeedSameTokens) {
  auto train = [&](uint64_t seed) {
    auto bert = Make(SmallConfig(), 4);
    bert->train();
    const TextInput texts = Texts();
    torch::manual_seed(seed);
    return bert->Encode(texts).values;
  };
  EXPECT_TRUE(at::equal(train(5), train(5)));
  EXPECT_FALSE(at::equal(train(5), train(6)));  // Dropout is on.
}

TEST(BertTextTest, RunsInDouble) {
  auto bert = Make(SmallConfig());
  const at::Tensor single = bert->Encode(Texts()).values;
  bert->to(at::kDouble);
  EXPECT_LT((bert->Encode(Texts()).values - single).abs().max().item<double>(),
            1e-4);
}

TEST(BertTextTest, NamesFollowHuggingFace) {
  std::set<std::string> names;
  auto bert = Make(SmallConfig());
  for (const auto& p : bert->named_parameters()) names.insert(p.key());
  for (const char* name : {"embeddings.word_embeddings.weight",
                           "embeddings.position_embeddings.weight",
                           "embeddings.token_type_embeddings.weight",
                           "embeddings.LayerNorm.weight",
                           "layer.1.attn.qkv.weight", "layer.1.norm2.bias"})
    EXPECT_EQ(names.count(name), 1u) << name;
}

TEST(BertTextTest, VocabularyIsPinnedOrTheTokenizers) {
  BertTextConfig config = SmallConfig();
  auto rows = [&] {
    return Make(config)
        ->named_parameters()["embeddings.word_embeddings.weight"]
        .size(0);
  };
  EXPECT_EQ(rows(), kVocabulary);
  config.set_vocab_size(64);
  EXPECT_EQ(rows(), 64);
  PluginContext context;
  context.vocab_size = 65;
  EXPECT_EQ(MakeBertText(config, context).status().code(),
            absl::StatusCode::kInvalidArgument);
  config.clear_vocab_size();
  context.vocab_size = 0;
  EXPECT_EQ(MakeBertText(config, context).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(BertTextTest, LongTextsAreRefused) {
  auto bert = Make(SmallConfig());
  EXPECT_THROW(bert->Encode({at::zeros({1, 13}, at::kLong), {}}), c10::Error);
  EXPECT_THROW(bert->Encode({at::full({1, 3}, kVocabulary, at::kLong), {}}),
               c10::Error);
  ContractBook book;
  book.max_tokens = 13;
  PluginContext context;
  context.vocab_size = kVocabulary;
  context.book = &book;
  EXPECT_EQ(MakeBertText(SmallConfig(), context).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(BertTextTest, ValidationNamesEveryField) {
  EXPECT_TRUE(ValidateBertText(BertTextConfig()).ok());
  BertTextConfig config;
  config.set_heads(7);
  config.set_layers(0);
  config.set_dropout(-0.1);
  config.set_vocab_size(-1);
  const absl::Status status = ValidateBertText(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* field : {"heads", "layers", "dropout", "vocab_size"})
    EXPECT_NE(status.message().find(field), absl::string_view::npos)
        << field << " in " << status;
}

TEST(BertTextTest, ContractProvidesTokens) {
  const Contract contract = BertTextContract("text", SmallConfig(), {});
  ASSERT_NE(contract.Find("tokens"), nullptr);
  EXPECT_EQ(contract.Find("tokens")->dim, kDim);
  EXPECT_EQ(contract.batch_keys, std::vector<std::string>{"text"});
}

}  // namespace
}  // namespace semvq
