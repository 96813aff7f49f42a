#include "core/eval/confusion.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

namespace semvq {
namespace {

TEST(ConfusionMatrixTest, CountsRowsTrueColumnsPredicted) {
  ConfusionMatrix m(3);
  for (const auto& [truth, predicted] :
       {std::pair<int, int>{0, 0}, {0, 0}, {0, 2}, {1, 0}, {1, 1}}) {
    m.Add(truth, predicted);
  }
  EXPECT_EQ(m.classes(), 3);
  EXPECT_EQ(m.total(), 5);
  EXPECT_EQ(m.correct(), 3);
  EXPECT_EQ(m.count(0, 2), 1);
  EXPECT_EQ(m.count(2, 0), 0);
  EXPECT_EQ(m.support(0), 3);
  EXPECT_EQ(m.support(2), 0);
  EXPECT_EQ(m.Accuracy(), 3.0 / 5);
  EXPECT_EQ(m.Recall(0), 2.0 / 3);
  EXPECT_EQ(m.Recall(1), 1.0 / 2);
}

TEST(ConfusionMatrixTest, NothingHasNoShare) {
  ConfusionMatrix m(2);
  EXPECT_TRUE(std::isnan(m.Accuracy()));
  m.Add(0, 1);
  EXPECT_EQ(m.Accuracy(), 0);
  EXPECT_TRUE(std::isnan(m.Recall(1)));
}

TEST(ConfusionMatrixTest, ClassesThatAreNotThereThrow) {
  ConfusionMatrix m(2);
  EXPECT_THROW(m.Add(2, 0), std::out_of_range);
  EXPECT_THROW(m.Add(0, -1), std::out_of_range);
  EXPECT_EQ(m.total(), 0);
}

}  // namespace
}  // namespace semvq
