#include "core/nn/text_decoder.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/nn/beam_search.h"
#include "core/nn/testing.h"
#include "core/objective/text_loss.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

constexpr int64_t kVocab = 7, kMemoryDim = 5;

TextDecoderConfig SmallConfig(bool tied = false) {
  TextDecoderConfig config;
  config.set_depth(2);
  config.set_heads(2);
  config.set_dim(4);
  config.set_intermediate(6);
  config.set_max_positions(6);
  config.set_tie_embeddings(tied);
  return config;
}

class TextDecoderTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    torch::manual_seed(5);
    decoder = std::make_shared<TextDecoder>(SmallConfig(GetParam()), kMemoryDim,
                                            kVocab);
    decoder->to(at::kDouble);
    decoder->eval();
    at::NoGradGuard no_grad;
    for (at::Tensor p : decoder->parameters()) p.add_(at::randn_like(p), 0.4);
    ids = torch::tensor({{2, 5, 6, 3}, {2, 4, 3, 0}, {2, 6, 6, 5}}, at::kLong);
    memory.values = at::randn({2, 3, kMemoryDim}, at::kDouble);
    memory.mask = torch::tensor({{1, 1, 0}, {1, 1, 1}}, at::kBool);
    memory.index = torch::tensor({0, 1, 0}, at::kLong);
  }

  at::Tensor Logits() { return decoder->Logits(decoder->Hidden(ids, memory)); }

  std::shared_ptr<TextDecoder> decoder;
  at::Tensor ids;
  CrossMemory memory;
};

TEST_P(TextDecoderTest, LooksBackOnly) {
  const at::Tensor before = Logits();
  ids[0][2] = 4;
  const at::Tensor after = Logits();
  const at::Tensor change = (after - before).abs().amax(2);
  EXPECT_LT(change[0].narrow(0, 0, 2).max().item<double>(), 1e-14);
  EXPECT_GT(change[0].narrow(0, 2, 2).min().item<double>(), 1e-6);
  EXPECT_LT(change.narrow(0, 1, 2).max().item<double>(), 1e-14);
}

TEST_P(TextDecoderTest, ReadsTheMemoryOfItsRowWhereItIsReal) {
  const at::Tensor before = Logits();
  const auto change = [&](int64_t row, int64_t token) {
    const at::Tensor values = memory.values;
    memory.values = values.clone();
    memory.values[row][token] += 1;
    const at::Tensor c = (Logits() - before).abs().amax({1, 2});
    memory.values = values;
    return c;
  };
  EXPECT_EQ(change(0, 2).max().item<double>(), 0);  // Masked.
  const at::Tensor first = change(0, 0);
  EXPECT_GT(first[0].item<double>(), 1e-6);
  EXPECT_EQ(first[1].item<double>(), 0);
  EXPECT_GT(first[2].item<double>(), 1e-6);
}

TEST_P(TextDecoderTest, ParametersHaveTheirPeersNames) {
  std::set<std::string> names;
  for (const auto& p : decoder->named_parameters()) names.insert(p.key());
  for (const char* name :
       {"embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias",
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight", "layer.1.attn.qkv.weight",
        "layer.1.cross_attn.kv.bias", "layer.0.norm_cross.weight",
        "layer.0.mlp.fc2.weight", "head.dense.weight", "head.norm.bias"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
  EXPECT_EQ(names.count("head.decoder.weight"), GetParam() ? 0u : 1u);
  EXPECT_EQ(names.count("head.bias"), GetParam() ? 1u : 0u);
}

TEST_P(TextDecoderTest, GradientOfTheLossEqualsDifferences) {
  const at::Tensor targets =
      torch::tensor({{5, 6, 3, -1}, {4, 3, -1, -1}, {6, 6, 5, 3}}, at::kLong);
  const at::Tensor soft = at::randn({3, 4, kVocab}, at::kDouble);
  memory.values.set_requires_grad(true);
  std::vector<at::Tensor> inputs = decoder->parameters();
  inputs.push_back(memory.values);
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>&) {
        return TokenLosses(Logits(), targets, 0.1, soft, 0.3).sum();
      },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TextDecoderTest, RefusesTooLongTexts) {
  ids = at::zeros({3, 7}, at::kLong);
  EXPECT_THROW(Logits(), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(TiedOrNot, TextDecoderTest, testing::Bool());

TEST(TextDecoderConfigTest, SaysWhatIsWrong) {
  TextDecoderConfig config;
  FieldErrors none;
  ValidateTextDecoder(config, &none);
  EXPECT_TRUE(none.status().ok()) << none.status();
  config.set_depth(0);
  config.set_heads(3);
  config.set_dim(4);
  config.set_max_positions(1);
  config.set_dropout(1);
  FieldErrors errors;
  ValidateTextDecoder(config, &errors);
  const std::string message(errors.status().message());
  for (const char* part :
       {"decoder.depth: got 0", "decoder.heads: got 3",
        "decoder.max_positions: got 1", "decoder.dropout: got 1"}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
  EXPECT_TRUE(CheckTextDecoder(SmallConfig(), 5, 7, "x").ok());
  EXPECT_FALSE(CheckTextDecoder(SmallConfig(), 0, 7, "x").ok());
  EXPECT_FALSE(CheckTextDecoder(SmallConfig(), 5, 0, "x").ok());
  config = TextDecoderConfig();
  EXPECT_TRUE(absl::StrContains(CheckTextDecoder(config, 16, 7, "x").message(),
                                "does not divide"));
}

TEST(TokenLossesTest, EqualsItsDefinition) {
  torch::manual_seed(1);
  const at::Tensor logits = at::randn({2, 3, 4}, at::kDouble);
  const at::Tensor soft = at::randn({2, 3, 4}, at::kDouble);
  const at::Tensor targets = torch::tensor({{1, 0, -1}, {3, -1, 2}}, at::kLong);
  const at::Tensor losses = TokenLosses(logits, targets, 0.2, soft, 0.25);
  ASSERT_EQ(losses.sizes(), (std::vector<int64_t>{2, 3}));
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t n = 0; n < 3; ++n) {
      const int64_t target = targets[r][n].item<int64_t>();
      const at::Tensor log_p = at::log_softmax(logits[r][n], 0);
      const at::Tensor q = at::softmax(soft[r][n], 0);
      double expected = 0;
      for (int64_t v = 0; target >= 0 && v < 4; ++v) {
        const double share =
            0.75 * (0.8 * (v == target) + 0.2 / 4) + 0.25 * q[v].item<double>();
        expected -= share * log_p[v].item<double>();
      }
      EXPECT_NEAR(losses[r][n].item<double>(), expected, 1e-12);
    }
  }
}

// ---- Search, over a made-up language: logits by the text and its source.

constexpr int64_t kEnd = 0, kWords = 4;

at::Tensor MadeUpLogits(const at::Tensor& ids, const at::Tensor& sources) {
  const int64_t rows = ids.size(0);
  at::Tensor logits = at::empty({rows, kWords}, at::kDouble);
  for (int64_t r = 0; r < rows; ++r) {
    uint64_t key = sources[r].item<int64_t>() + 17;
    for (int64_t i = 0; i < ids.size(1); ++i)
      key = Mix64(key ^ static_cast<uint64_t>(ids[r][i].item<int64_t>()));
    RandomStream random(key);
    for (int64_t v = 0; v < kWords; ++v) logits[r][v] = random.Uniform(-2, 2);
  }
  return logits;
}

std::vector<double> LogP(const std::vector<int64_t>& text, int64_t source) {
  const at::Tensor log_p =
      at::log_softmax(MadeUpLogits(torch::tensor(text, at::kLong).view({1, -1}),
                                   torch::tensor({source}, at::kLong)),
                      -1)[0];
  std::vector<double> out;
  for (int64_t v = 0; v < kWords; ++v) out.push_back(log_p[v].item<double>());
  return out;
}

struct Best {
  double score = -1e9;
  std::vector<int64_t> ids;
};

// Every text of at most `length` tokens.
void Enumerate(const BeamSearchOptions& o, int64_t source,
               std::vector<int64_t> text, double sum, Best& best) {
  const int64_t written = static_cast<int64_t>(text.size()) - 1;
  const std::vector<double> log_p = LogP(text, source);
  for (int64_t v = 0; v < kWords; ++v) {
    if (std::count(o.barred.begin(), o.barred.end(), v) > 0) continue;
    if (v == kEnd && written < o.min_new_tokens) continue;
    const double total = sum + log_p[v];
    const double score =
        total / std::pow(static_cast<double>(written + 1), o.length_penalty);
    std::vector<int64_t> longer = text;
    if (v != kEnd) longer.push_back(v);
    if (v == kEnd || written + 1 == o.max_new_tokens) {
      if (score > best.score)
        best = {score, {longer.begin() + 1, longer.end()}};
    } else {
      Enumerate(o, source, longer, total, best);
    }
  }
}

std::vector<WrittenText> SearchMadeUp(int64_t sources,
                                      const BeamSearchOptions& o) {
  return BeamSearch(MadeUpLogits, sources, {9}, o, at::kCPU);
}

TEST(BeamSearchTest, AWideBeamFindsTheBestText) {
  for (const double penalty : {0.0, 0.7, 1.0, 2.0}) {
    for (const int64_t least : {0, 2}) {
      for (const bool bar : {false, true}) {
        BeamSearchOptions o;
        o.beam_size = 300;  // More than there are texts.
        o.max_new_tokens = 4;
        o.min_new_tokens = least;
        o.length_penalty = penalty;
        o.end = kEnd;
        if (bar) o.barred = {2};
        const std::vector<WrittenText> found = SearchMadeUp(12, o);
        for (int64_t s = 0; s < 12; ++s) {
          Best best;
          Enumerate(o, s, {9}, 0, best);
          EXPECT_EQ(found[s].ids, best.ids) << s;
          EXPECT_NEAR(found[s].score, best.score, 1e-12);
        }
      }
    }
  }
}

TEST(BeamSearchTest, GreedyTakesTheLikeliestTokenEachTime) {
  BeamSearchOptions o;
  o.max_new_tokens = 6;
  o.end = kEnd;
  int64_t ended = 0;
  const std::vector<WrittenText> found = SearchMadeUp(40, o);
  for (int64_t s = 0; s < 40; ++s) {
    std::vector<int64_t> text = {9};
    bool end = false;
    while (!end && text.size() <= 6) {
      const std::vector<double> p = LogP(text, s);
      const int64_t v = std::max_element(p.begin(), p.end()) - p.begin();
      end = v == kEnd;
      if (!end) text.push_back(v);
    }
    EXPECT_EQ(found[s].ids, std::vector<int64_t>(text.begin() + 1, text.end()));
    EXPECT_EQ(found[s].ended, end);
    ended += end;
  }
  EXPECT_GT(ended, 3);
  EXPECT_LT(ended, 40);
}

TEST(BeamSearchTest, SourcesDoNotInfluenceEachOther) {
  BeamSearchOptions o;
  o.beam_size = 3;
  o.max_new_tokens = 5;
  o.end = kEnd;
  const std::vector<WrittenText> all = SearchMadeUp(20, o);
  for (int64_t s = 0; s < 20; ++s) {
    const auto alone = BeamSearch(
        [s](const at::Tensor& ids, const at::Tensor& sources) {
          return MadeUpLogits(ids, sources + s);
        },
        1, {9}, o, at::kCPU);
    EXPECT_EQ(alone[0].ids, all[s].ids);
    EXPECT_EQ(alone[0].score, all[s].score);
    // A wider beam keeps no worse a text.
    EXPECT_LE(alone[0].ids.size(), 5u);
  }
}

TEST(BeamSearchTest, EqualTextsGoByOrder) {
  BeamSearchOptions o;
  o.beam_size = 2;
  o.max_new_tokens = 2;
  o.end = 3;
  const auto found = BeamSearch(
      [](const at::Tensor& ids, const at::Tensor&) {
        return at::zeros({ids.size(0), 4}, at::kDouble);
      },
      1, {9}, o, at::kCPU);
  // All texts of one length are equal; those of two tokens come first among
  // the ones that are kept, and end is none of the first two tokens.
  EXPECT_EQ(found[0].ids, (std::vector<int64_t>{0, 0}));
}

}  // namespace
}  // namespace semvq
