#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/eval/information.h"
#include "core/eval/ranking.h"
#include "core/eval/vqa_accuracy.h"
#include "core/random/stream.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

// The rank by sorting, an independent way to the same number.
int64_t RankBySort(const std::vector<float>& row,
                   const std::vector<int64_t>& positives) {
  std::vector<int64_t> order(row.size());
  for (size_t i = 0; i < row.size(); ++i) order[i] = static_cast<int64_t>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return row[a] > row[b]; });
  for (size_t i = 0; i < order.size(); ++i) {
    for (int64_t p : positives) {
      if (order[i] == p) return static_cast<int64_t>(i);
    }
  }
  return -1;
}

TEST(RankingTest, EqualsSortingWithTiesAndSeveralPositives) {
  RandomStream random(7, "ranking");
  for (int round = 0; round < 1000; ++round) {
    const int64_t n = 1 + random.Below(12);
    std::vector<float> row(n);
    for (float& v : row) v = static_cast<float>(random.Below(4));  // Many ties.
    std::vector<int64_t> positives;
    for (int64_t i = 0; i <= random.Below(3); ++i) {
      positives.push_back(random.Below(n));
    }
    const at::Tensor scores = torch::tensor(row).view({1, n});
    EXPECT_EQ(BestPositiveRanks(scores, {positives})[0],
              RankBySort(row, positives));
  }
}

TEST(RankingTest, RecallAndItsChance) {
  EXPECT_DOUBLE_EQ(RecallAt({0, 1, 4, 9}, 1), 25);
  EXPECT_DOUBLE_EQ(RecallAt({0, 1, 4, 9}, 5), 75);
  EXPECT_NEAR(ChanceRecallAt({{0}, {1}}, 20, 5), 25, 1e-9);
  // Two positives of four candidates, two drawn: 1 - (2*1)/(4*3).
  EXPECT_NEAR(ChanceRecallAt({{0, 1}}, 4, 2), 100 * (1 - 2.0 / 12), 1e-9);
  EXPECT_DOUBLE_EQ(ChanceRecallAt({{0}}, 3, 10), 100);
}

TEST(RankingTest, TopColumnsEqualAStableSort) {
  RandomStream random(8, "top columns");
  for (int round = 0; round < 300; ++round) {
    const int64_t n = 1 + random.Below(30), k = 1 + random.Below(35);
    std::vector<float> row(n);
    for (float& v : row) v = static_cast<float>(random.Below(5));
    std::vector<int64_t> order(n);
    for (int64_t i = 0; i < n; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return row[a] > row[b]; });
    order.resize(std::min(n, k));
    const at::Tensor scores = torch::tensor(row).view({1, n});
    EXPECT_TRUE(at::equal(TopColumns(at::cat({scores, scores}), k)[1],
                          torch::tensor(order, at::kLong)));
  }
}

TEST(RankingTest, RerankedRankMovesTheHeadAlone) {
  const std::vector<int64_t> top = {7, 2, 9, 4};
  const std::vector<double> scores = {0.5, 1.5, 1.5, -1};
  const auto rank = [&](std::vector<int64_t> positives, int64_t before) {
    return RerankedRank(top.data(), scores.data(), 4, positives, before);
  };
  EXPECT_EQ(rank({2}, 1), 0);
  EXPECT_EQ(rank({9}, 2), 1);  // As good as 2, and a higher number.
  EXPECT_EQ(rank({7}, 0), 2);
  EXPECT_EQ(rank({4, 7, 9}, 0), 1);
  EXPECT_EQ(rank({5}, 6), 6);  // Not among the first four.
}

TEST(RankingTest, MedianCountsFromOne) {
  EXPECT_EQ(MedianRank({}), 0);
  EXPECT_EQ(MedianRank({4}), 5);
  EXPECT_EQ(MedianRank({9, 0, 1}), 2);
  EXPECT_EQ(MedianRank({3, 0, 9, 4}), 4.5);
}

TEST(VqaAccuracyTest, OneAnnotatorIsExactMatch) {
  TextRecord q;
  q.answers = {{"red", 1.0f}};
  EXPECT_EQ(VqaAccuracy("red", q), 1);
  EXPECT_EQ(VqaAccuracy("blue", q), 0);
}

// Against the definition written out: leave every annotator out once.
TEST(VqaAccuracyTest, EqualsLeavingEachAnnotatorOut) {
  RandomStream random(3, "vqa");
  const std::vector<std::string> vocabulary = {"yes", "no", "2", "dog"};
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::string> given;
    for (int i = 0; i < 10; ++i) given.push_back(vocabulary[random.Below(4)]);
    TextRecord q;
    q.annotators = 10;
    for (const std::string& word : vocabulary) {
      const auto n = std::count(given.begin(), given.end(), word);
      if (n > 0) q.answers.emplace_back(word, static_cast<float>(n) / 10);
    }
    for (const std::string& word : vocabulary) {
      double expected = 0;
      for (int left_out = 0; left_out < 10; ++left_out) {
        int matches = 0;
        for (int i = 0; i < 10; ++i)
          matches += i != left_out && given[i] == word;
        expected += std::min(1.0, matches / 3.0) / 10;
      }
      EXPECT_NEAR(VqaAccuracy(word, q), expected, 1e-9);
    }
  }
}

TEST(InformationTest, PurityIsTheShareOfTheHeaviestColumns) {
  EXPECT_DOUBLE_EQ(Purity(torch::eye(5)), 1);
  EXPECT_DOUBLE_EQ(Purity(torch::ones({3, 4})), 0.25);
  EXPECT_DOUBLE_EQ(Purity(torch::tensor({{2.0, 0.0}, {1.0, 5.0}})), 7.0 / 8);
  EXPECT_EQ(Purity(torch::zeros({2, 2})), 0);
}

TEST(InformationTest, ExtremesAndAKnownTable) {
  EXPECT_NEAR(NormalizedMutualInformation(torch::eye(5)), 1, 1e-12);
  EXPECT_NEAR(NormalizedMutualInformation(torch::ones({3, 4})), 0, 1e-12);
  EXPECT_EQ(NormalizedMutualInformation(torch::ones({1, 4})), 0);
  // p = [[.5, 0], [.25, .25]]: H(a) = 1 bit, H(b) = H(.75), H(a,b) = 1.5 bits.
  const double hb = -(0.75 * std::log2(0.75) + 0.25 * std::log2(0.25));
  EXPECT_NEAR(
      NormalizedMutualInformation(torch::tensor({{2.0, 0.0}, {1.0, 1.0}})),
      (1 + hb - 1.5) / std::sqrt(hb), 1e-9);
}

}  // namespace
}  // namespace semvq
