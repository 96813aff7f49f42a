#include "objectives/text_assignment/text_assignment.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "objectives/text_assignment/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 4;

std::shared_ptr<Objective> Make(TextAssignmentConfig config = {}) {
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kDim}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = "ta";
  context.book = &book;
  torch::manual_seed(3);
  auto made = MakeTextAssignment(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

Batch Images(int64_t images, int64_t texts_per_image = 1) {
  TestBatchOptions options;
  options.images = images;
  options.texts_per_image = texts_per_image;
  return TestBatch(options);
}

class TextAssignmentTest : public testing::Test {
 protected:
  // Everything the objective asks for: embeddings, and fused tokens.
  void Wire(TestForward& forward, Objective& objective) {
    embedding_ = std::make_unique<FakeProvider>(
        [this](const ViewKey&, Forward&) -> std::any { return embeddings; });
    fusion_ = std::make_unique<FakeProvider>([this](const ViewKey& key,
                                                    Forward& f) -> std::any {
      EXPECT_EQ(key.pairing, "ta");
      EXPECT_EQ(key.slot, kAllSlots);
      const Pairing& pairing = f.Get<Pairing>({"ta", kPairing, {}, 0, ""});
      Tokens tokens;
      tokens.values =
          fused.defined()
              ? fused
              : at::randn({pairing.text_index.size(0), 2, kDim}, at::kDouble);
      return tokens;
    });
    forward.student = {{"itc", embedding_.get()},
                       {"fusion", fusion_.get()},
                       {"ta", &objective}};
  }

  const Pairing& PairingOf(TestForward& forward) {
    return forward->Get<Pairing>({"ta", kPairing, {}, 0, ""});
  }

  // The label that the images say, -2 when they contradict the rules.
  static std::vector<int64_t> LabelsByImages(const Pairing& pairing,
                                             const Batch& batch) {
    std::vector<int64_t> labels;
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      const int64_t own = batch.text_to_image[t].item<int64_t>();
      const int64_t a = pairing.slots[0][t].item<int64_t>();
      const int64_t b = pairing.slots[1][t].item<int64_t>();
      labels.push_back(a == b ? -2 : a == own ? 0 : b == own ? 1 : 2);
    }
    return labels;
  }

  at::Tensor embeddings = at::eye(6, at::kDouble);
  at::Tensor fused;

 private:
  std::unique_ptr<FakeProvider> embedding_, fusion_;
};

TEST_F(TextAssignmentTest, EachSideHasItsShareAndTheImagesAreDifferent) {
  auto objective = Make();
  std::map<int64_t, int> counts;
  for (int64_t step = 0; step < 300; ++step) {
    Batch batch = Images(6);
    for (int64_t& number : batch.sample_numbers) number += 6 * step;
    TestForward forward(batch);
    Wire(forward, *objective);
    const Pairing& pairing = PairingOf(forward);
    ASSERT_EQ(pairing.slots.size(), 2u);
    EXPECT_TRUE(at::equal(pairing.text_index, at::arange(6)));
    for (int64_t label : LabelsByImages(pairing, batch)) ++counts[label];
  }
  EXPECT_EQ(counts.count(-2), 0u);
  // 1,800 draws: standard deviation 20.
  for (int64_t label : {0, 1, 2}) EXPECT_NEAR(counts[label], 600, 80) << label;
}

TEST_F(TextAssignmentTest, TheShareOfNeitherCanBeSet) {
  for (double share : {0.0, 1.0}) {
    TextAssignmentConfig config;
    config.set_neither_share(share);
    auto objective = Make(config);
    const Batch batch = Images(6, 2);
    TestForward forward(batch);
    Wire(forward, *objective);
    for (int64_t label : LabelsByImages(PairingOf(forward), batch))
      EXPECT_EQ(label == 2, share == 1.0);
  }
}

// The other image follows softmax(cosine / temperature) over the others.
TEST_F(TextAssignmentTest, OthersAreDrawnBySimilarity) {
  TextAssignmentConfig config;
  config.set_neither_share(0);
  config.set_temperature(0.5);
  auto objective = Make(config);
  const at::Tensor angles = torch::tensor({0.0, 0.4, 1.2, 2.6}, at::kDouble);
  embeddings = at::stack({angles.cos(), angles.sin()}, 1);
  std::vector<double> odds;
  for (int j = 1; j < 4; ++j)
    odds.push_back(std::exp(std::cos(angles[j].item<double>()) / 0.5));
  const double sum = odds[0] + odds[1] + odds[2];
  std::map<int64_t, int> counts;
  constexpr int kDraws = 3000;
  for (int64_t step = 0; step < kDraws; ++step) {
    Batch batch = Images(4);
    for (int64_t& number : batch.sample_numbers) number += 4 * step;
    TestForward forward(batch);
    Wire(forward, *objective);
    const Pairing& pairing = PairingOf(forward);
    const int64_t a = pairing.slots[0][0].item<int64_t>();
    const int64_t b = pairing.slots[1][0].item<int64_t>();
    ++counts[a == 0 ? b : a];
  }
  for (int j = 1; j < 4; ++j) {
    const double p = odds[j - 1] / sum;
    EXPECT_NEAR(counts[j], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p)))
        << j;
  }
  EXPECT_EQ(counts.count(0), 0u);
}

TEST_F(TextAssignmentTest, DrawsAreKeyedBySampleNotByPlace) {
  auto objective = Make();
  const Batch batch = Images(6);
  TestForward forward(batch);
  Wire(forward, *objective);
  const Pairing pairing = PairingOf(forward);
  Batch turned = batch;
  std::reverse(turned.sample_numbers.begin(), turned.sample_numbers.end());
  std::reverse(turned.image_ids.begin(), turned.image_ids.end());
  TestForward other(turned);
  Wire(other, *objective);
  for (int slot : {0, 1}) {
    EXPECT_TRUE(at::equal(5 - PairingOf(other).slots[slot].flip(0),
                          pairing.slots[slot]));
  }
  TestForward again(batch, false, {true, 8, 0});  // Another seed.
  Wire(again, *objective);
  EXPECT_FALSE(at::equal(PairingOf(again).slots[0], pairing.slots[0]) &&
               at::equal(PairingOf(again).slots[1], pairing.slots[1]));
}

TEST_F(TextAssignmentTest, LossIsTheCrossEntropyOfTheLabels) {
  auto objective = Make();
  objective->to(at::kDouble);
  const Batch batch = Images(6);
  torch::manual_seed(4);
  fused = at::randn({6, 2, kDim}, at::kDouble);
  TestForward forward(batch);
  Wire(forward, *objective);
  const ObjectiveOutput out = objective->Compute(*forward);
  const std::vector<int64_t> labels = LabelsByImages(PairingOf(forward), batch);
  const auto head = objective->named_parameters();
  const at::Tensor log_p = at::log_softmax(
      at::linear(fused.select(1, 0), head["head.weight"], head["head.bias"]),
      1);
  double loss = 0, correct = 0;
  for (int64_t t = 0; t < 6; ++t) {
    loss -= log_p[t][labels[t]].item<double>() / 6;
    correct += log_p[t].argmax().item<int64_t>() == labels[t];
  }
  EXPECT_NEAR(ValueOf(out.losses, "assignment"), loss, 1e-12);
  EXPECT_NEAR(ValueOf(out.metrics, "accuracy"), correct / 6, 1e-6);
}

TEST_F(TextAssignmentTest, GradientEqualsDifferences) {
  auto objective = Make();
  objective->to(at::kDouble);
  torch::manual_seed(4);
  std::vector<at::Tensor> inputs = objective->parameters();
  inputs.push_back(at::randn({6, 2, kDim}, at::kDouble).requires_grad_(true));
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>& in) {
        fused = in.back();
        TestForward forward(Images(6));
        Wire(forward, *objective);
        return SumOf(objective->Compute(*forward).losses);
      },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

// Where there are too few other images, the text is left out.
TEST_F(TextAssignmentTest, SmallAndUniformBatches) {
  TextAssignmentConfig config;
  config.set_contrastive("");
  for (double share : {0.0, 1.0}) {
    config.set_neither_share(share);
    auto objective = Make(config);
    objective->to(at::kDouble);
    for (int64_t images : {1, 2, 3}) {
      for (bool one_id : {false, true}) {
        Batch batch = Images(images);
        if (one_id) batch.image_ids.assign(images, "same");
        TestForward forward(batch);
        Wire(forward, *objective);
        const double loss =
            ValueOf(objective->Compute(*forward).losses, "assignment");
        const int64_t others = one_id ? 0 : images - 1;
        const bool possible = others >= (share == 1.0 ? 2 : 1);
        EXPECT_EQ(loss > 0, possible) << images << " " << one_id << share;
        EXPECT_TRUE(std::isfinite(loss));
        for (const at::Tensor& slot : PairingOf(forward).slots) {
          EXPECT_GE(slot.min().item<int64_t>(), 0);
          EXPECT_LT(slot.max().item<int64_t>(), images);
        }
      }
    }
  }
}

TEST_F(TextAssignmentTest, ImagesOfOneIdAreNoOthers) {
  TextAssignmentConfig config;
  config.set_contrastive("");
  auto objective = Make(config);
  std::set<int64_t> seen;
  for (int64_t step = 0; step < 100; ++step) {
    Batch batch = Images(6);
    batch.image_ids[1] = batch.image_ids[0];
    for (int64_t& number : batch.sample_numbers) number += 6 * step;
    TestForward forward(batch);
    Wire(forward, *objective);
    for (const at::Tensor& slot : PairingOf(forward).slots)
      seen.insert(slot[0].item<int64_t>());
  }
  EXPECT_EQ(seen, (std::set<int64_t>{0, 2, 3, 4, 5}));
}

TEST(TextAssignmentContracts, NeedsAndErrors) {
  TextAssignmentConfig config;
  EXPECT_TRUE(ValidateTextAssignment(config).ok());
  Contract contract = TextAssignmentContract("ta", config, {});
  ASSERT_EQ(contract.needs.size(), 2u);
  EXPECT_EQ(contract.needs[1].instance, "itc");
  EXPECT_EQ(contract.needs[1].view, kImageEmbedding);
  config.set_contrastive("");
  EXPECT_EQ(TextAssignmentContract("ta", config, {}).needs.size(), 1u);

  config.set_neither_share(1.5);
  config.set_temperature(0);
  config.set_fusion("");
  const absl::Status status = ValidateTextAssignment(config);
  for (const char* field : {"neither_share", "temperature", "fusion"})
    EXPECT_TRUE(absl::StrContains(status.message(), field)) << status;
  PluginContext context;
  const ContractBook empty;
  context.book = &empty;
  EXPECT_EQ(MakeTextAssignment(TextAssignmentConfig(), context).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semvq
