#include "objectives/itm/itm.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "objectives/itm/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kFusedDim = 4;

std::shared_ptr<Objective> Make(const ItmConfig& config = {}) {
  torch::manual_seed(12);
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kFusedDim}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = "itm";
  context.book = &book;
  auto made = MakeItm(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    p.set_data(at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

void SetSimilarity(Forward& forward, const at::Tensor& similarity) {
  forward.Set({"itc", kSimilarity, Variant{}, 0, ""}, similarity);
}

void SetFused(Forward& forward, const at::Tensor& values) {
  Tokens tokens;
  tokens.values = values;
  tokens.has_cls = true;
  forward.Set(FusedKey("fusion", kFused, Variant{}, "itm"), tokens);
}

const ViewKey kPairs = {"itm", kPairing, Variant{}, 0, ""};

Batch SharedIdBatch() {
  Batch batch = TestBatch({.images = 4, .texts_per_image = 2});
  batch.image_ids = {"a", "b", "a", "c"};
  return batch;
}

TEST(ItmTest, PairsArePositivesThenNegativesOfOtherImages) {
  auto itm = Make();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    TestForward forward(SharedIdBatch(), false, {true, seed, 0});
    forward.student["itm"] = itm.get();
    // Alike images are the most similar ones: a slip would show.
    at::Tensor similarity = at::zeros({4, 8}, at::kDouble);
    similarity.select(0, 0).fill_(20);
    similarity.select(0, 2).fill_(20);
    SetSimilarity(*forward, similarity);
    const Pairing& pairing = forward->Get<Pairing>(kPairs);
    const Batch& batch = forward.batch();
    ASSERT_EQ(pairing.text_index.size(0), 8 + 8 + 4);
    ASSERT_EQ(pairing.image_index.size(0), 8 + 8 + 4);
    for (int64_t p = 0; p < 20; ++p) {
      const int64_t text = pairing.text_index[p].item<int64_t>();
      const int64_t image = pairing.image_index[p].item<int64_t>();
      const int64_t own = batch.text_to_image[text].item<int64_t>();
      if (p < 8) {
        EXPECT_EQ(text, p);
        EXPECT_EQ(image, own);
      } else {
        EXPECT_NE(batch.image_ids[image], batch.image_ids[own]);
        if (p < 16) {
          EXPECT_EQ(text, p - 8);
        } else {
          EXPECT_EQ(image, p - 16);
        }
      }
    }
  }
}

// Shares of 4000 draws at `step`: image 2 (not 1) as text 0's negative, and
// text 2 (not 0) as image 1's, of three pairs.
std::pair<double, double> NegativeShares(Objective& itm, int64_t step) {
  const at::Tensor similarity = torch::tensor(
      {{0.0, 1.0, -1.0}, {0.5, 0.0, 2.0}, {1.5, -0.5, 0.0}}, at::kDouble);
  const int draws = 4000;
  double image_2 = 0, text_2 = 0;
  for (int i = 0; i < draws; ++i) {
    TestForward forward(TestBatch({.images = 3}), false,
                        {true, static_cast<uint64_t>(i), step});
    forward.student["itm"] = &itm;
    SetSimilarity(*forward, similarity);
    const Pairing& pairing = forward->Get<Pairing>(kPairs);
    image_2 += pairing.image_index[3].item<int64_t>() == 2;
    text_2 += pairing.text_index[7].item<int64_t>() == 2;
  }
  return {image_2 / draws, text_2 / draws};
}

double Odds(double a, double b) {
  return std::exp(a) / (std::exp(a) + std::exp(b));
}

constexpr double kFourDeviations = 0.03;  // Of a binomial share of 4000.

TEST(ItmTest, NegativesFollowTheSimilarity) {
  auto itm = Make();
  const auto [image_2, text_2] = NegativeShares(*itm, 0);
  EXPECT_NEAR(image_2, Odds(1.5, 0.5), kFourDeviations);
  EXPECT_NEAR(text_2, Odds(2.0, 0.5), kFourDeviations);
}

TEST(ItmTest, HardnessGrowsFromNone) {
  ItmConfig config;
  config.set_hardness(2);
  config.set_hardness_ramp_steps(10);
  auto itm = Make(config);
  const auto [image_at_0, text_at_0] = NegativeShares(*itm, 0);
  EXPECT_NEAR(image_at_0, 0.5, kFourDeviations);
  EXPECT_NEAR(text_at_0, 0.5, kFourDeviations);
  const auto [image_at_5, text_at_5] = NegativeShares(*itm, 5);
  EXPECT_NEAR(image_at_5, Odds(1.5, 0.5), kFourDeviations);
  EXPECT_NEAR(text_at_5, Odds(2.0, 0.5), kFourDeviations);
  const auto [image_at_20, text_at_20] = NegativeShares(*itm, 20);
  EXPECT_NEAR(image_at_20, Odds(3.0, 1.0), kFourDeviations);
  EXPECT_NEAR(text_at_20, Odds(4.0, 1.0), kFourDeviations);
}

TEST(ItmTest, DrawsDoNotDependOnTheOrderOfTheBatch) {
  auto itm = Make();
  torch::manual_seed(5);
  const at::Tensor similarity = at::randn({4, 4}, at::kDouble);
  Batch batch = TestBatch({.images = 4});
  const std::vector<int64_t> order = {2, 0, 3, 1};
  const at::Tensor rows = torch::tensor(order, at::kLong);
  Batch shuffled = batch;
  shuffled.text_ids = batch.text_ids.index_select(0, rows);
  for (int64_t i = 0; i < 4; ++i) {
    shuffled.image_ids[i] = batch.image_ids[order[i]];
    shuffled.sample_numbers[i] = batch.sample_numbers[order[i]];
  }
  std::set<std::pair<int64_t, int64_t>> pairs[2];
  for (int which : {0, 1}) {
    TestForward forward(which == 0 ? batch : shuffled);
    forward.student["itm"] = itm.get();
    SetSimilarity(*forward,
                  which == 0
                      ? similarity
                      : similarity.index_select(0, rows).index_select(1, rows));
    const Pairing& pairing = forward->Get<Pairing>(kPairs);
    const std::vector<int64_t>& numbers = forward.batch().sample_numbers;
    for (int64_t p = 0; p < 12; ++p) {
      pairs[which].insert({numbers[pairing.text_index[p].item<int64_t>()],
                           numbers[pairing.image_index[p].item<int64_t>()]});
    }
  }
  EXPECT_EQ(pairs[0], pairs[1]);
}

TEST(ItmTest, LossIsTheCrossEntropyOfTheHead) {
  auto itm = Make();
  TestForward forward(TestBatch({.images = 2}));
  forward.student["itm"] = itm.get();
  SetSimilarity(*forward, at::zeros({2, 2}, at::kDouble));
  torch::manual_seed(6);
  const at::Tensor fused = at::randn({6, 3, kFusedDim}, at::kDouble);
  SetFused(*forward, fused);
  const ObjectiveOutput out = itm->Compute(*forward);

  const at::Tensor w = itm->named_parameters()["head.weight"];
  const at::Tensor b = itm->named_parameters()["head.bias"];
  double loss = 0;
  int right = 0, right_negatives = 0;
  for (int64_t p = 0; p < 6; ++p) {
    double z[2];
    for (int64_t k : {0, 1}) {
      z[k] = b[k].item<double>();
      for (int64_t i = 0; i < kFusedDim; ++i) {
        z[k] += w[k][i].item<double>() * fused[p][0][i].item<double>();
      }
    }
    const int label = p < 2;
    loss -= z[label] - std::log(std::exp(z[0]) + std::exp(z[1]));
    right += z[label] > z[1 - label];
    right_negatives += p >= 2 && z[label] > z[1 - label];
  }
  EXPECT_NEAR(SumOf(out.losses).item<double>(), loss / 6, 1e-10);
  EXPECT_NEAR(ValueOf(out.metrics, "accuracy"), right / 6.0, 1e-6);
  EXPECT_NEAR(ValueOf(out.metrics, "negative_accuracy"), right_negatives / 4.0,
              1e-6);
}

TEST(ItmTest, WithoutNegativesOnlyPositivesCount) {
  auto itm = Make();
  Batch batch = TestBatch({.images = 2});
  batch.image_ids = {"a", "a"};
  TestForward forward(batch);
  forward.student["itm"] = itm.get();
  SetSimilarity(*forward, at::zeros({2, 2}, at::kDouble));
  torch::manual_seed(7);
  at::Tensor fused = at::randn({6, 3, kFusedDim}, at::kDouble);
  // Whatever the negatives' rows hold has no part in the loss.
  fused.slice(0, 2).fill_(1e3);
  SetFused(*forward, fused);
  const at::Tensor logits = at::linear(fused.slice(0, 0, 2).select(1, 0),
                                       itm->named_parameters()["head.weight"],
                                       itm->named_parameters()["head.bias"]);
  EXPECT_NEAR(SumOf(itm->Compute(*forward).losses).item<double>(),
              -at::log_softmax(logits, -1).select(1, 1).mean().item<double>(),
              1e-10);
}

TEST(ItmTest, MatchLogitsFollowAnyPairing) {
  auto itm = Make();
  TestForward forward(TestBatch({.images = 2}));
  forward.student["itm"] = itm.get();
  Tokens fused;
  fused.values = at::randn({2, 3, kFusedDim}, at::kDouble);
  forward->Set(FusedKey("fusion", kFused, Variant{}, "rerank"), fused);
  EXPECT_EQ(
      forward
          ->Get<at::Tensor>(FusedKey("itm", kMatchLogits, Variant{}, "rerank"))
          .sizes(),
      at::IntArrayRef({2, 2}));
}

TEST(ItmTest, GradientsAreRight) {
  auto itm = Make();
  torch::manual_seed(8);
  std::vector<at::Tensor> inputs = {at::randn({20, 2, kFusedDim}, at::kDouble)};
  for (at::Tensor p : itm->parameters()) inputs.push_back(p);
  for (at::Tensor& x : inputs) x.requires_grad_(true);
  EXPECT_TRUE(NumericGradientCheck(
                  [&itm](const std::vector<at::Tensor>& x) {
                    TestForward forward(SharedIdBatch());
                    forward.student["itm"] = itm.get();
                    SetSimilarity(*forward, at::zeros({4, 8}, at::kDouble));
                    SetFused(*forward, x[0]);
                    return SumOf(itm->Compute(*forward).losses);
                  },
                  inputs)
                  .ok());
}

TEST(ItmTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateItm(ItmConfig()).ok());
  ItmConfig config;
  config.set_fusion("");
  config.set_contrastive("");
  config.set_hardness(-1);
  config.set_hardness_ramp_steps(-1);
  const absl::Status status = ValidateItm(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("fusion:"), std::string::npos);
  for (const char* field : {"contrastive", "hardness", "hardness_ramp_steps"}) {
    EXPECT_NE(status.message().find(absl::StrCat("\n", field, ":")),
              std::string::npos)
        << field;
  }
  ContractBook book;
  PluginContext context;
  context.book = &book;
  EXPECT_FALSE(MakeItm(config, context).ok());
}

}  // namespace
}  // namespace semvq
