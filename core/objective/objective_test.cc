#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/distributed/testing.h"
#include "core/forward/testing.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"

namespace semvq {
namespace {

// ln softmax(row)[k], by hand.
double LogSoftmax(const at::Tensor& row, int64_t k) {
  const auto x = row.accessor<double, 1>();
  double sum = 0;
  for (int64_t i = 0; i < x.size(0); ++i) sum += std::exp(x[i]);
  return x[k] - std::log(sum);
}

TEST(LossesTest, CrossEntropySkipsNegativeTargets) {
  torch::manual_seed(1);
  const at::Tensor logits = at::randn({2, 3, 5}, at::kDouble);
  const at::Tensor targets = torch::tensor({{0, -1, 4}, {2, 2, -1}}, at::kLong);
  double sum = 0;
  for (auto [b, m, k] : std::vector<std::tuple<int, int, int>>{
           {0, 0, 0}, {0, 2, 4}, {1, 0, 2}, {1, 1, 2}}) {
    sum -= LogSoftmax(logits[b][m], k);
  }
  EXPECT_NEAR(CrossEntropyAt(logits, targets).item<double>(), sum / 4, 1e-12);
}

TEST(LossesTest, CrossEntropyMixesSoftTargets) {
  torch::manual_seed(2);
  const at::Tensor logits = at::randn({2, 4}, at::kDouble);
  const at::Tensor teacher = at::randn({2, 4}, at::kDouble);
  const at::Tensor targets = torch::tensor({3, -1}, at::kLong);
  double expected = -0.7 * LogSoftmax(logits[0], 3);
  for (int64_t k = 0; k < 4; ++k) {
    expected -=
        0.3 * std::exp(LogSoftmax(teacher[0], k)) * LogSoftmax(logits[0], k);
  }
  EXPECT_NEAR(CrossEntropyAt(logits, targets, teacher, 0.3).item<double>(),
              expected, 1e-12);
  // alpha 0 is the hard loss, whatever the teacher says.
  EXPECT_DOUBLE_EQ(CrossEntropyAt(logits, targets, teacher, 0).item<double>(),
                   CrossEntropyAt(logits, targets).item<double>());
}

TEST(LossesTest, NothingToPredictIsZeroWithZeroGradient) {
  at::Tensor logits = at::randn({2, 4}, at::kDouble).requires_grad_(true);
  const at::Tensor targets = at::full({2}, -1, at::kLong);
  for (const at::Tensor& soft : {at::Tensor(), logits.detach()}) {
    const at::Tensor loss = CrossEntropyAt(logits, targets, soft, 0.5);
    EXPECT_EQ(loss.item<double>(), 0);
    logits.mutable_grad() = at::Tensor();
    loss.backward();
    EXPECT_EQ(logits.grad().abs().max().item<double>(), 0);
  }
}

TEST(LossesTest, SoftCrossEntropyLeavesOutRowsOfWeightZero) {
  torch::manual_seed(3);
  const at::Tensor logits = at::randn({3, 4}, at::kDouble);
  const at::Tensor target = at::softmax(at::randn({3, 4}, at::kDouble), -1);
  double sum = 0;
  for (int64_t row : {0, 2}) {
    for (int64_t k = 0; k < 4; ++k) {
      sum -= target[row][k].item<double>() * LogSoftmax(logits[row], k);
    }
  }
  EXPECT_NEAR(SoftCrossEntropy(logits, target,
                               torch::tensor({1.0, 0.0, 1.0}, at::kDouble))
                  .item<double>(),
              sum / 2, 1e-12);
}

TEST(LossesTest, Top1CountsValidRows) {
  const at::Tensor logits = torch::tensor(
      {{1.0, 2.0}, {3.0, 1.0}, {0.0, 5.0}, {0.0, 5.0}}, at::kDouble);
  EXPECT_FLOAT_EQ(
      Top1(logits, torch::tensor({1, 1, 1, -1}, at::kLong)).item<float>(),
      2.0f / 3);
}

TEST(LossesTest, CountsOfAllRanksMakeTheirMeanTheWhole) {
  // 3 rows on the first rank, of which one counts; 2 on the second; none counts
  // on the third.
  torch::manual_seed(4);
  const at::Tensor logits = at::randn({7, 4}, at::kDouble);
  const at::Tensor targets =
      torch::tensor({1, -1, -1, 0, 3, -1, -1}, at::kLong);
  const at::Tensor soft = at::softmax(at::randn({7, 4}, at::kDouble), -1);
  const at::Tensor weight = targets.ge(0).to(at::kDouble);
  const int64_t first[] = {0, 3, 5, 7};
  std::vector<std::vector<double>> parts(3);
  RunRanks(3, [&](Communicator& group) {
    const int64_t begin = first[group.rank()];
    const int64_t rows = first[group.rank() + 1] - begin;
    const at::Tensor x = logits.narrow(0, begin, rows);
    const at::Tensor y = targets.narrow(0, begin, rows);
    const at::Tensor count = CountTargets(y, &group);
    parts[group.rank()] = {
        CrossEntropyAt(x, y, {}, 0.0, count).item<double>(),
        CrossEntropyAt(x, y, soft.narrow(0, begin, rows), 0.3, count)
            .item<double>(),
        Top1(x, y, count).item<double>(),
        SoftCrossEntropy(x, soft.narrow(0, begin, rows),
                         weight.narrow(0, begin, rows), &group)
            .item<double>(),
        MeanOverCount(at::zeros({}), at::zeros({}, at::kLong), &group)
            .item<double>()};
  });
  const std::vector<double> whole = {
      CrossEntropyAt(logits, targets).item<double>(),
      CrossEntropyAt(logits, targets, soft, 0.3).item<double>(),
      Top1(logits, targets).item<double>(),
      SoftCrossEntropy(logits, soft, weight).item<double>(), 0};
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_NEAR((parts[0][i] + parts[1][i] + parts[2][i]) / 3, whole[i], 1e-7)
        << i;
  }
}

TEST(LossesTest, UpcastKeepsWideTypes) {
  EXPECT_EQ(Upcast(at::ones({1}, at::kBFloat16)).scalar_type(), at::kFloat);
  EXPECT_EQ(Upcast(at::ones({1}, at::kFloat)).scalar_type(), at::kFloat);
  EXPECT_EQ(Upcast(at::ones({1}, at::kDouble)).scalar_type(), at::kDouble);
}

TEST(LossesTest, NoAutocastKeepsProductsWide) {
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const at::Tensor a = at::ones({2, 2}, at::kFloat);
  EXPECT_EQ(at::matmul(a, a).scalar_type(), at::kBFloat16);
  {
    NoAutocast no_autocast;
    EXPECT_EQ(at::matmul(a, a).scalar_type(), at::kFloat);
  }
  EXPECT_EQ(at::matmul(a, a).scalar_type(), at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, false);
}

TEST(LossesTest, AlphaRampsLinearly) {
  EXPECT_DOUBLE_EQ(LinearRamp(0.4, 0, 0), 0.4);
  EXPECT_DOUBLE_EQ(LinearRamp(0.4, 10, 0), 0.0);
  EXPECT_DOUBLE_EQ(LinearRamp(0.4, 10, 5), 0.2);
  EXPECT_DOUBLE_EQ(LinearRamp(0.4, 10, 50), 0.4);
}

TEST(LossesTest, GathersPositions) {
  const at::Tensor values =
      at::arange(2 * 3 * 2, at::kDouble).reshape({2, 3, 2});
  const at::Tensor out =
      GatherPositions(values, torch::tensor({{2, 0}, {1, 1}}, at::kLong));
  EXPECT_TRUE(out.equal(torch::tensor(
      {{{4.0, 5.0}, {0.0, 1.0}}, {{8.0, 9.0}, {8.0, 9.0}}}, at::kDouble)));
}

TEST(PairsTest, IdKeysAreEqualForEqualIdsOnly) {
  Batch batch = TestBatch({.images = 4});
  batch.image_ids = {"a", "b", "a", ""};
  const at::Tensor keys = ImageIdKeys(batch);
  EXPECT_EQ(keys[0].item<int64_t>(), keys[2].item<int64_t>());
  EXPECT_EQ(std::get<0>(at::_unique(keys)).numel(), 3);
  EXPECT_GE(keys.min().item<int64_t>(), 0);
  // Exact in float64: modules are cast as a whole.
  EXPECT_TRUE(keys.to(at::kDouble).to(at::kLong).equal(keys));
}

TEST(PairsTest, FindsTheFirstTextOfEveryImage) {
  Batch batch = TestBatch({.images = 3, .texts_per_image = 2});
  batch.text_to_image = torch::tensor({2, 0, 0, 1, 2, 1}, at::kLong);
  EXPECT_TRUE(FirstTexts(batch).equal(torch::tensor({1, 3, 0}, at::kLong)));
  const std::vector<TextPlace> places = TextPlaces(batch);
  EXPECT_EQ(places[4].image, 2);
  EXPECT_EQ(places[4].index, 1);
}

TEST(PairsTest, RefusesImagesWithoutTextAndRowsOutsideTheBatch) {
  Batch batch = TestBatch({.images = 2, .texts_per_image = 1});
  batch.text_to_image = torch::tensor({0, 0}, at::kLong);
  EXPECT_THROW(FirstTexts(batch), c10::Error);
  batch.text_to_image = torch::tensor({0, 2}, at::kLong);
  EXPECT_THROW(TextPlaces(batch), c10::Error);
}

TEST(PairsTest, DrawKeysBelongToSamplesNotToRows) {
  Batch batch = TestBatch({.images = 2, .texts_per_image = 2});
  const std::vector<uint64_t> images = ImageDrawKeys(batch);
  const std::vector<uint64_t> texts = TextDrawKeys(batch);
  EXPECT_NE(texts[0], texts[1]);
  EXPECT_NE(texts[0], texts[2]);
  std::swap(batch.sample_numbers[0], batch.sample_numbers[1]);
  EXPECT_EQ(ImageDrawKeys(batch)[0], images[1]);
  EXPECT_EQ(TextDrawKeys(batch)[1], texts[3]);
}

TEST(PairsTest, GathersKeysOfAllRanks) {
  const std::vector<uint64_t> keys = {~uint64_t{0}, 1, 2};
  EXPECT_EQ(GatherKeys(keys, nullptr), keys);
  RunRanks(2, [&](Communicator& group) {
    const std::vector<uint64_t> own(keys.begin() + group.rank(), keys.end());
    EXPECT_EQ(GatherKeys(own, &group),
              (std::vector<uint64_t>{~uint64_t{0}, 1, 2, 1, 2}));
  });
}

TEST(PairsTest, GumbelNoiseIsKeyedByEntry) {
  const at::Tensor a = KeyedGumbel(1, "x", {10, 11}, {20, 21, 22});
  const at::Tensor b = KeyedGumbel(1, "x", {11, 10}, {22, 20, 21});
  EXPECT_TRUE(b.index_select(0, torch::tensor({1, 0}, at::kLong))
                  .index_select(1, torch::tensor({1, 2, 0}, at::kLong))
                  .equal(a));
  EXPECT_FALSE(KeyedGumbel(2, "x", {10, 11}, {20, 21, 22}).equal(a));
  EXPECT_FALSE(KeyedGumbel(1, "y", {10, 11}, {20, 21, 22}).equal(a));
}

TEST(PairsTest, GumbelArgmaxDrawsFromTheSoftmax) {
  std::vector<uint64_t> rows(20000);
  std::iota(rows.begin(), rows.end(), 0);
  const at::Tensor noise = KeyedGumbel(3, "draw", rows, {1, 2, 3});
  // Mean of the standard Gumbel distribution: Euler's constant; deviation
  // pi / sqrt(6).
  EXPECT_NEAR(noise.mean().item<double>(), 0.5772, 0.02);
  EXPECT_NEAR(noise.std().item<double>(), 1.2825, 0.02);
  const at::Tensor p = torch::tensor({0.2, 0.5, 0.3}, at::kDouble);
  const at::Tensor drawn = (noise + p.log()).argmax(-1);
  for (int64_t k = 0; k < 3; ++k) {
    EXPECT_NEAR(drawn.eq(k).to(at::kDouble).mean().item<double>(),
                p[k].item<double>(), 0.015);
  }
}

}  // namespace
}  // namespace semvq
