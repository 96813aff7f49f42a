#include "objectives/mlm/mlm.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "core/text/tokenizer.h"
#include "objectives/mlm/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kFusedDim = 4, kVocab = 20;
constexpr int64_t kPad = 0, kUnk = 1, kCls = 2, kSep = 3, kMaskId = 4;

// Special ids are all that the objective reads.
class SpecialsOnly : public Tokenizer {
 public:
  SpecialsOnly() : Tokenizer({kPad, kUnk, kCls, kSep, kMaskId}) {}
  std::vector<int64_t> Encode(absl::string_view) const override { return {}; }
  std::string Decode(absl::Span<const int64_t>) const override { return ""; }
  std::string Piece(int64_t) const override { return ""; }
  int64_t vocab_size() const override { return kVocab; }
  std::string fingerprint() const override { return "specials"; }
};

std::shared_ptr<Objective> Make(const MlmConfig& config) {
  torch::manual_seed(13);
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kFusedDim}};
  book.Add("fusion", fusion);
  SpecialsOnly tokenizer;
  PluginContext context;
  context.instance = "mlm";
  context.book = &book;
  context.tokenizer = &tokenizer;
  context.vocab_size = kVocab;
  auto made = MakeMlm(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    p.set_data(at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

TextMask Draw(Objective& mlm, const Batch& batch, uint64_t seed = 7) {
  TestForward forward(batch, false, {true, seed, 0});
  forward.student["mlm"] = &mlm;
  return forward->Get<TextMask>(TextKey("mlm", kTextMask));
}

Batch ManyTexts() {
  return TestBatch(
      {.images = 200, .texts_per_image = 3, .length = 12, .vocab = kVocab});
}

TEST(MlmTest, HidesTheRightNumberOfTheRightTokens) {
  for (bool mask_sep : {true, false}) {
    MlmConfig config;
    config.set_mask_sep(mask_sep);
    config.set_mask_probability(0.3);
    auto mlm = Make(config);
    const Batch batch = ManyTexts();
    const TextMask mask = Draw(*mlm, batch);
    const int64_t capacity = 4;  // ceil(0.3 * 12)
    ASSERT_EQ(mask.positions.sizes(), at::IntArrayRef({600, capacity}));
    int64_t hidden_seps = 0;
    for (int64_t t = 0; t < 600; ++t) {
      int64_t tokens = 0;
      for (int64_t i = 0; i < 12; ++i) {
        const int64_t id = batch.text_ids[t][i].item<int64_t>();
        tokens += id != kPad && id != kCls && (mask_sep || id != kSep);
      }
      const int64_t expected = std::min<int64_t>(
          tokens, std::max<int64_t>(1, std::llround(0.3 * tokens)));
      EXPECT_EQ(mask.valid[t].sum().item<int64_t>(), expected) << tokens;
      std::set<int64_t> hidden;
      for (int64_t m = 0; m < capacity; ++m) {
        const int64_t at = mask.positions[t][m].item<int64_t>();
        if (!mask.valid[t][m].item<bool>()) {
          EXPECT_EQ(at, 0);
          continue;
        }
        EXPECT_TRUE(hidden.insert(at).second);
        const int64_t id = batch.text_ids[t][at].item<int64_t>();
        EXPECT_EQ(mask.targets[t][m].item<int64_t>(), id);
        EXPECT_NE(id, kCls);
        EXPECT_NE(id, kPad);
        hidden_seps += id == kSep;
      }
      for (int64_t i = 0; i < 12; ++i) {
        if (hidden.count(i) == 0) {
          EXPECT_EQ(mask.ids[t][i].item<int64_t>(),
                    batch.text_ids[t][i].item<int64_t>());
        }
      }
    }
    EXPECT_EQ(hidden_seps > 0, mask_sep);
  }
}

TEST(MlmTest, ReplacesEightyTenTen) {
  MlmConfig config;
  config.set_mask_sep(false);
  config.set_mask_probability(0.5);
  auto mlm = Make(config);
  Batch batch = ManyTexts();
  const TextMask mask = Draw(*mlm, batch);
  const at::Tensor now = mask.ids.gather(1, mask.positions);
  const at::Tensor now_valid = now.masked_select(mask.valid);
  const at::Tensor was = mask.targets.masked_select(mask.valid);
  const double n = static_cast<double>(was.numel());
  ASSERT_GT(n, 1500);
  const double masked = now_valid.eq(kMaskId).sum().item<double>() / n;
  const double kept = now_valid.eq(was).sum().item<double>() / n;
  EXPECT_NEAR(masked, 0.8, 0.04);
  // A random token is the true one by chance in 1 of 15 cases.
  EXPECT_NEAR(kept, 0.1 + 0.1 / 15, 0.03);
  const at::Tensor random = now_valid.masked_select(
      now_valid.ne(kMaskId).logical_and(now_valid.ne(was)));
  EXPECT_GT(random.numel(), 0);
  EXPECT_GE(random.min().item<int64_t>(), 5);
  EXPECT_LT(random.max().item<int64_t>(), kVocab);
}

TEST(MlmTest, DrawsBelongToTheSampleNotToItsRow) {
  MlmConfig config;
  config.set_mask_probability(0.4);
  auto mlm = Make(config);
  const Batch batch =
      TestBatch({.images = 6, .texts_per_image = 2, .length = 10});
  // The second half alone, its images in reverse order.
  Batch part = batch;
  const at::Tensor rows = torch::tensor({10, 11, 8, 9, 6, 7}, at::kLong);
  part.images = batch.images.slice(0, 0, 3);
  part.text_ids = batch.text_ids.index_select(0, rows);
  part.text_mask = batch.text_mask.index_select(0, rows);
  part.text_to_image = torch::tensor({0, 0, 1, 1, 2, 2}, at::kLong);
  part.image_ids = {"image5", "image4", "image3"};
  part.sample_numbers = {105, 104, 103};
  const TextMask all = Draw(*mlm, batch);
  const TextMask some = Draw(*mlm, part);
  EXPECT_TRUE(some.ids.equal(all.ids.index_select(0, rows)));
  EXPECT_TRUE(some.positions.equal(all.positions.index_select(0, rows)));
  // Another seed and another sample draw otherwise.
  EXPECT_FALSE(Draw(*mlm, batch, 8).ids.equal(all.ids));
  Batch later = batch;
  for (int64_t& number : later.sample_numbers) number += 1000;
  EXPECT_FALSE(Draw(*mlm, later).ids.equal(all.ids));
}

TEST(MlmTest, TextWithoutTokensHasNoTarget) {
  MlmConfig config;
  config.set_mask_sep(false);
  auto mlm = Make(config);
  Batch batch = TestBatch({.images = 1});
  batch.text_ids = torch::tensor({{kCls, kSep, kPad, kPad}}, at::kLong);
  batch.text_mask = batch.text_ids.ne(kPad);
  const TextMask mask = Draw(*mlm, batch);
  EXPECT_FALSE(mask.valid.any().item<bool>());
  EXPECT_TRUE(mask.ids.equal(batch.text_ids));
}

struct Rig {
  explicit Rig(const at::Tensor& fused, Objective& mlm,
               bool with_teacher = false)
      : forward(TestBatch({.images = 3, .length = 6, .vocab = kVocab}),
                with_teacher) {
    forward.student["mlm"] = &mlm;
    Tokens tokens;
    tokens.values = fused;
    Variant masked;
    masked.text_mask = "mlm";
    forward->Set(FusedKey("fusion", kFused, masked), tokens);
  }
  TestForward forward;
};

TEST(MlmTest, LossIsTheMeanOverHiddenTokens) {
  MlmConfig config;
  config.set_mask_probability(0.5);
  config.set_alpha(0.3);
  auto mlm = Make(config);
  torch::manual_seed(14);
  const at::Tensor fused = at::randn({3, 6, kFusedDim}, at::kDouble);
  Rig hard(fused, *mlm);
  const ObjectiveOutput out = mlm->Compute(*hard.forward);
  const TextMask& mask = hard.forward->Get<TextMask>(TextKey("mlm", kTextMask));
  const at::Tensor teacher =
      at::randn({3, mask.positions.size(1), kVocab}, at::kDouble);
  Rig soft(fused, *mlm, /*with_teacher=*/true);
  Variant variant;
  variant.teacher = true;
  soft.forward->Set(FusedKey("mlm", kMlmLogits, variant), teacher);
  const ObjectiveOutput soft_out = mlm->Compute(*soft.forward);

  auto parameters = mlm->named_parameters();
  double expected = 0, expected_soft = 0, hits = 0;
  int64_t count = 0;
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t m = 0; m < mask.positions.size(1); ++m) {
      if (!mask.valid[t][m].item<bool>()) continue;
      at::Tensor x = fused[t][mask.positions[t][m].item<int64_t>()];
      x = at::matmul(parameters["dense.weight"], x) + parameters["dense.bias"];
      x = 0.5 * x * (1 + at::erf(x / std::sqrt(2.0)));
      x = (x - x.mean()) / (x.var(0, /*unbiased=*/false) + 1e-12).sqrt();
      x = x * parameters["norm.weight"] + parameters["norm.bias"];
      x = at::matmul(parameters["decoder.weight"], x) +
          parameters["decoder.bias"];
      const at::Tensor log_p = x - x.exp().sum().log();
      const int64_t target = mask.targets[t][m].item<int64_t>();
      const at::Tensor q = teacher[t][m].exp() / teacher[t][m].exp().sum();
      expected -= log_p[target].item<double>();
      expected_soft -= 0.7 * log_p[target].item<double>() +
                       0.3 * (q * log_p).sum().item<double>();
      hits += x.argmax().item<int64_t>() == target;
      ++count;
    }
  }
  ASSERT_GT(count, 3);
  EXPECT_NEAR(SumOf(out.losses).item<double>(), expected / count, 1e-9);
  EXPECT_NEAR(SumOf(soft_out.losses).item<double>(), expected_soft / count,
              1e-9);
  EXPECT_NEAR(ValueOf(out.metrics, "top1"), hits / count, 1e-6);
  // Logits exist at the hidden positions only.
  EXPECT_EQ(hard.forward->Get<at::Tensor>(FusedKey("mlm", kMlmLogits)).sizes(),
            at::IntArrayRef({3, 3, kVocab}));
}

TEST(MlmTest, GradientsAreRight) {
  MlmConfig config;
  config.set_mask_probability(0.5);
  auto mlm = Make(config);
  torch::manual_seed(15);
  const at::Tensor teacher = at::randn({3, 3, kVocab}, at::kDouble);
  std::vector<at::Tensor> inputs = {at::randn({3, 6, kFusedDim}, at::kDouble)};
  for (at::Tensor p : mlm->parameters()) inputs.push_back(p);
  for (at::Tensor& x : inputs) x.requires_grad_(true);
  for (bool with_teacher : {false, true}) {
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& x) {
          Rig rig(x[0], *mlm, with_teacher);
          Variant variant;
          variant.teacher = true;
          rig.forward->Set(FusedKey("mlm", kMlmLogits, variant), teacher);
          return SumOf(mlm->Compute(*rig.forward).losses);
        },
        inputs);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(MlmTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateMlm(MlmConfig()).ok());
  const std::vector<std::pair<std::string, void (*)(MlmConfig&)>> bad = {
      {"text", [](MlmConfig& c) { c.set_text(""); }},
      {"fusion", [](MlmConfig& c) { c.set_fusion(""); }},
      {"mask_probability", [](MlmConfig& c) { c.set_mask_probability(0); }},
      {"mask_probability", [](MlmConfig& c) { c.set_mask_probability(1); }},
      {"mask_probability",
       [](MlmConfig& c) { c.set_mask_probability(std::nan("")); }},
      {"alpha", [](MlmConfig& c) { c.set_alpha(-0.1); }},
      {"alpha_ramp_steps", [](MlmConfig& c) { c.set_alpha_ramp_steps(-5); }}};
  for (const auto& [field, change] : bad) {
    MlmConfig config;
    change(config);
    const absl::Status status = ValidateMlm(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
  // Without text there is nothing to mask.
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kFusedDim}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.book = &book;
  EXPECT_EQ(MakeMlm(MlmConfig(), context).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace semvq
