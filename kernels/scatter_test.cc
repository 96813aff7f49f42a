#include "kernels/scatter.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "gtest/gtest.h"
#include "kernels/reference.h"

namespace semvq {
namespace {

TEST(ScatterTest, CountsAndSums) {
  at::manual_seed(1);
  for (at::ScalarType type :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    const at::Tensor z = at::randn({500, 7}).to(type);
    const at::Tensor codes = at::randint(-1, 40, {500}, at::kLong);
    const CodeSums got = CodeStatistics(z, codes, 60);
    at::Tensor counts = at::zeros({60}, at::kLong);
    at::Tensor sums = at::zeros({60, 7}, at::kDouble);
    for (int64_t i = 0; i < 500; ++i) {
      const int64_t k = codes[i].item<int64_t>();
      if (k < 0) continue;
      counts[k] += 1;
      sums[k] += z[i].to(at::kDouble);
    }
    const CodeSums reference = CodeStatisticsReference(z, codes, 60);
    EXPECT_TRUE(at::equal(reference.counts, counts));
    EXPECT_TRUE(at::equal(reference.sums, sums.to(reference.sums.dtype())));
    // The order of the sums is part of the contract: equal to the last bit.
    EXPECT_TRUE(at::equal(got.sums, reference.sums));
    EXPECT_TRUE(at::equal(got.counts, counts));
    EXPECT_TRUE(at::equal(Histogram(codes.view({50, 10}), 60), counts));
    EXPECT_EQ(got.sums.scalar_type(),
              type == at::kDouble ? at::kDouble : at::kFloat);
    EXPECT_TRUE(at::allclose(got.sums.to(at::kDouble), sums, 1e-6, 1e-6));
  }
}

TEST(ScatterTest, ThreadsDoNotMatter) {
  at::manual_seed(2);
  const at::Tensor z = at::randn({20000, 33});
  const at::Tensor codes = at::randint(0, 3000, {20000}, at::kLong);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const CodeSums one = CodeStatistics(z, codes, 3000);
  at::set_num_threads(3);
  const CodeSums three = CodeStatistics(z, codes, 3000);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.sums, three.sums));
}

TEST(ScatterTest, NoFeatures) {
  const CodeSums got =
      CodeStatistics(at::zeros({0, 3}), at::zeros({0}, at::kLong), 4);
  EXPECT_TRUE(at::equal(got.counts, at::zeros({4}, at::kLong)));
  EXPECT_TRUE(at::equal(got.sums, at::zeros({4, 3})));
}

TEST(ScatterTest, BadInputIsRefused) {
  const at::Tensor z = at::zeros({2, 3});
  EXPECT_THROW(CodeStatistics(z, at::full({2}, 4, at::kLong), 4), c10::Error);
  EXPECT_THROW(CodeStatistics(z, at::zeros({3}, at::kLong), 4), c10::Error);
  EXPECT_THROW(CodeStatistics(z, at::zeros({2}), 4), c10::Error);
  EXPECT_THROW(Histogram(at::zeros({2}, at::kLong), 0), c10::Error);
}

}  // namespace
}  // namespace semvq
