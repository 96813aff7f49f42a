#include "core/objective/mask.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <set>
#include <vector>

#include "core/forward/testing.h"

namespace semvq {
namespace {

TEST(MaskTest, RandomPositionsAreDistinctAndUniform) {
  RandomStream random(1, "test");
  std::vector<int> hits(10, 0);
  for (int i = 0; i < 3000; ++i) {
    const std::vector<int64_t> drawn = RandomPositions(10, 4, random);
    ASSERT_EQ(drawn.size(), 4u);
    ASSERT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    ASSERT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 4u);
    for (int64_t position : drawn) ++hits.at(position);
  }
  // 3000 * 0.4 = 1200 with a deviation of 27.
  for (int n : hits) EXPECT_NEAR(n, 1200, 120);
}

TEST(MaskTest, OneBlockIsARectangle) {
  // With the smallest block as large as the count, one rectangle does it,
  // unless rounding left it short.
  RandomStream random(2, "test");
  int rectangles = 0;
  for (int i = 0; i < 300; ++i) {
    const std::vector<int64_t> drawn =
        BlockwisePositions(14, 14, 16, 16, 1.0, random);
    ASSERT_EQ(drawn.size(), 16u);
    const int64_t top = drawn.front() / 14, left = drawn.front() % 14;
    bool rectangle = true;
    for (int64_t p : drawn) {
      rectangle &= p / 14 - top < 4 && p % 14 >= left && p % 14 - left < 4;
    }
    rectangles += rectangle;
  }
  EXPECT_EQ(rectangles, 300);
}

TEST(MaskTest, BlocksClusterAndKeepTheCount) {
  const auto neighbours = [](const std::vector<int64_t>& drawn) {
    std::set<int64_t> hidden(drawn.begin(), drawn.end());
    double sum = 0;
    for (int64_t p : drawn) {
      sum += p % 14 < 13 && hidden.count(p + 1) > 0;
      sum += p / 14 < 13 && hidden.count(p + 14) > 0;
    }
    return sum / drawn.size();
  };
  RandomStream random(3, "test");
  double block = 0, scattered = 0;
  for (int i = 0; i < 200; ++i) {
    const std::vector<int64_t> drawn =
        BlockwisePositions(14, 14, 75, 16, 1 / 0.3, random);
    ASSERT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 75u);
    ASSERT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    block += neighbours(drawn) / 200;
    scattered += neighbours(RandomPositions(196, 75, random)) / 200;
  }
  // A random patch has 2 * 13/14 * 74/195 = 0.70 such neighbours.
  EXPECT_NEAR(scattered, 0.70, 0.05);
  EXPECT_GT(block, 1.3);
}

TEST(MaskTest, GridsSmallerThanABlockAreCovered) {
  RandomStream random(4, "test");
  for (int64_t count : {1, 2, 5, 6}) {
    EXPECT_EQ(BlockwisePositions(2, 3, count, 16, 1 / 0.3, random).size(),
              static_cast<size_t>(count));
  }
}

TEST(MaskTest, DrawsBySampleAndNotByRow) {
  for (bool blockwise : {false, true}) {
    PatchMaskOptions options;
    options.blockwise = blockwise;
    options.min_block = 4;
    options.max_aspect = 2;
    const Batch batch = TestBatch({.images = 20});
    const ImageMask mask = DrawPatchMask(batch, {4, 6}, options, 7, 0);
    ASSERT_EQ(mask.positions.sizes(), at::IntArrayRef({20, 10}));
    EXPECT_TRUE(mask.mask.sum(1).eq(10).all().item<bool>());
    EXPECT_TRUE(mask.mask.gather(1, mask.positions).all().item<bool>());
    EXPECT_TRUE(mask.positions.diff(1, 1).gt(0).all().item<bool>());
    Batch part = batch;
    part.sample_numbers = {119, 103};
    const ImageMask again = DrawPatchMask(part, {4, 6}, options, 7, 0);
    EXPECT_TRUE(again.positions[0].equal(mask.positions[19]));
    EXPECT_TRUE(again.positions[1].equal(mask.positions[3]));
    // Another seed or image slot hides others.
    EXPECT_FALSE(
        DrawPatchMask(batch, {4, 6}, options, 8, 0).mask.equal(mask.mask));
    EXPECT_FALSE(
        DrawPatchMask(batch, {4, 6}, options, 7, 1).mask.equal(mask.mask));
  }
}

TEST(MaskTest, HidesAtLeastOneAndAtMostAll) {
  EXPECT_EQ(HiddenPatches(0.4, 16), 6);
  EXPECT_EQ(HiddenPatches(0.01, 16), 1);
  EXPECT_EQ(HiddenPatches(1.0, 16), 16);
}

}  // namespace
}  // namespace semvq
