#include "kernels/kmeans.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/kmeans_step.h"
#include "kernels/reference.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

KMeansOptions Options(int64_t clusters, uint64_t seed = 1) {
  KMeansOptions options;
  options.clusters = clusters;
  options.seed = seed;
  return options;
}

TEST(KMeansTest, FindsSeparatedClusters) {
  at::manual_seed(1);
  const at::Tensor truth = at::randn({12, 6}) * 20;
  const at::Tensor points =
      truth.repeat_interleave(50, 0) + at::randn({600, 6}) * 0.1;
  const KMeansResult got = KMeans(points, Options(12));
  // Every true centre has a found one close by, with all its points.
  const at::Tensor match = AssignNearest(truth, got.centers);
  EXPECT_LT(
      (got.centers.index_select(0, match) - truth).abs().max().item<float>(),
      0.1);
  EXPECT_TRUE(at::equal(got.counts, at::full({12}, 50, at::kLong)));
  EXPECT_NEAR(got.errors.back(), 6 * 0.01, 0.01);
}

TEST(KMeansTest, AStepMatchesTheReference) {
  at::manual_seed(7);
  for (at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (Metric metric : {Metric::kL2, Metric::kCosine}) {
      at::Tensor points = at::randn({300, 5}, type);
      at::Tensor centers = at::randn({40, 5}, type);
      if (metric == Metric::kCosine) {
        points = points / points.norm(2, 1, true);
        centers = centers / centers.norm(2, 1, true);
      }
      // One that nothing is near, and one that stands twice.
      centers[3] = metric == Metric::kCosine ? centers[0] : centers[0] + 1e6;
      centers[7] = centers[6];
      const KMeansStepResult got = KMeansStep(points, centers, metric);
      const KMeansStepResult want =
          KMeansStepReference(points, centers, metric);
      EXPECT_TRUE(at::equal(got.codes, want.codes));
      EXPECT_TRUE(at::equal(got.counts, want.counts));
      EXPECT_EQ(got.counts[3].item<int64_t>() + got.counts[7].item<int64_t>(),
                0);
      EXPECT_TRUE(at::allclose(got.distances, want.distances, 1e-12, 1e-12));
      EXPECT_EQ(got.centers.scalar_type(), type);
      EXPECT_TRUE(at::allclose(got.centers, want.centers, 1e-6, 1e-6));
      EXPECT_TRUE(at::equal(got.centers[3], centers[3]));
    }
  }
}

TEST(KMeansTest, ErrorNeverRises) {
  at::manual_seed(2);
  const at::Tensor points = at::randn({3000, 8});
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    KMeansOptions options = Options(64);
    options.metric = metric;
    const KMeansResult got = KMeans(points, options);
    ASSERT_EQ(got.errors.size(), 11u);
    for (size_t i = 1; i < got.errors.size(); ++i)
      EXPECT_LE(got.errors[i], got.errors[i - 1] * (1 + 1e-6));
    EXPECT_LT(got.errors.back(), 0.95 * got.errors.front());
    EXPECT_EQ(got.counts.sum().item<int64_t>(), 3000);
    if (metric == Metric::kCosine) {
      EXPECT_TRUE(at::allclose(got.centers.norm(2, 1), at::ones({64})));
    }
  }
}

TEST(KMeansTest, SeedsAndThreads) {
  at::manual_seed(3);
  const at::Tensor points = at::randn({2000, 16});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const KMeansResult one = KMeans(points, Options(40));
  at::set_num_threads(3);
  const KMeansResult three = KMeans(points, Options(40));
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.centers, three.centers));
  EXPECT_FALSE(at::equal(one.centers, KMeans(points, Options(40, 2)).centers));
}

TEST(KMeansTest, FewerPointsThanClusters) {
  at::manual_seed(4);
  const at::Tensor points = at::randn({5, 3}, at::kDouble);
  const KMeansResult got = KMeans(points, Options(9));
  EXPECT_EQ(got.centers.scalar_type(), at::kDouble);
  EXPECT_LT(got.errors.back(), 1e-20);
  EXPECT_EQ((got.counts > 0).sum().item<int64_t>(), 5);
  const KMeansResult same = KMeans(at::ones({4, 2}), Options(3));
  EXPECT_TRUE(at::equal(same.centers, at::ones({3, 2})));
  EXPECT_EQ(KMeans(at::ones({1, 1}), Options(1)).counts[0].item<int64_t>(), 1);
}

TEST(KMeansTest, EmptyClustersMoveToFarPoints) {
  // Two distant points must end in clusters of their own, whatever the seeding.
  at::manual_seed(5);
  const at::Tensor points =
      at::cat({at::randn({500, 2}) * 0.01, at::full({1, 2}, 100.0),
               at::full({1, 2}, -100.0)});
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const KMeansResult got = KMeans(points, Options(8, seed));
    EXPECT_LT(got.errors.back(), 0.01);
    EXPECT_GT(got.counts.min().item<int64_t>(), 0);
  }
}

TEST(KMeansTest, NonFiniteAndHugePoints) {
  at::manual_seed(6);
  at::Tensor points = at::randn({100, 4});
  points[3][1] = NAN;
  points[5][0] = INFINITY;
  const KMeansResult got = KMeans(points, Options(6));
  EXPECT_TRUE(got.centers.isfinite().all().item<bool>());
  EXPECT_EQ(got.counts.sum().item<int64_t>(), 98);
  const KMeansResult huge = KMeans(at::randn({100, 4}) * 1e30, Options(6));
  EXPECT_TRUE(huge.centers.isfinite().all().item<bool>());
  EXPECT_THROW(KMeans(points.slice(0, 3, 4), Options(2)), c10::Error);
  EXPECT_THROW(KMeans(points, Options(0)), c10::Error);
}

}  // namespace
}  // namespace semvq
