// The CUDA kernels against the references. Needs a GPU: without one every test
// skips and says so.
#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/assign.h"
#include "kernels/grouped.h"
#include "kernels/kmeans_step.h"
#include "kernels/lookup.h"
#include "kernels/reference.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

class CudaKernelsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA())
      GTEST_SKIP() << "this machine has no CUDA device, or the build is not "
                      "--config=cuda";
    at::manual_seed(1);
  }
};

void ExpectExact(const at::Tensor& z, const at::Tensor& e,
                 const std::string& what) {
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    const at::Tensor got =
        AssignNearest(z.to(at::kCUDA), e.to(at::kCUDA), metric);
    ASSERT_TRUE(got.is_cuda());
    const at::Tensor want = AssignNearestReference(z, e, metric);
    EXPECT_EQ((got.cpu() != want).sum().item<int64_t>(), 0)
        << what << (metric == Metric::kL2 ? " l2" : " cosine") << " "
        << z.sizes() << " " << e.sizes();
  }
}

TEST_F(CudaKernelsTest, AssignsOddSizes) {
  for (int64_t n : {1, 127, 128, 129, 1500}) {
    for (int64_t k : {1, 2, 127, 129, 1000}) {
      for (int64_t d : {1, 3, 31, 32, 33, 100}) {
        ExpectExact(at::randn({n, d}), at::randn({k, d}), "random");
      }
    }
  }
  ExpectExact(at::randn({3000, 32}) + 30, at::randn({2000, 32}) + 30, "offset");
  // Several chunks of features and splits of the codebook.
  ExpectExact(at::randn({9000, 16}), at::randn({3000, 16}), "large");
  EXPECT_EQ(
      AssignNearest(at::zeros({0, 3}).cuda(), at::ones({2, 3}).cuda()).numel(),
      0);
}

TEST_F(CudaKernelsTest, AssignsTiesAndNearTies) {
  const at::Tensor z = at::randint(-2, 3, {700, 4}).to(at::kFloat);
  const at::Tensor e = at::randint(-2, 3, {800, 4}).to(at::kFloat);
  ExpectExact(z, e, "integers");
  // More candidates than lists have room for.
  ExpectExact(z, at::ones({500, 4}), "all equal");
  const at::Tensor base = at::randn({60, 24});
  std::vector<at::Tensor> steps;
  for (int i = 0; i < 12; ++i) steps.push_back(base * (1 + 1.2e-7 * (i - 6)));
  ExpectExact(at::cat({base, base * (1 + 0.6e-7)}), at::cat(steps),
              "float32 steps");
  const at::Tensor wide = base.to(at::kDouble);
  ExpectExact(wide * (1 + 0.7e-12),
              at::cat({wide, wide * (1 + 1e-12), wide * (1 - 1e-12)}),
              "float64 steps");
}

TEST_F(CudaKernelsTest, AssignsAllDtypesMagnitudesAndLayouts) {
  const at::Tensor z = at::randn({300, 12});
  const at::Tensor e = at::randn({170, 12});
  for (at::ScalarType a : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (at::ScalarType b : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf})
      ExpectExact(z.to(a), e.to(b), "dtypes");
  }
  for (double scale : {1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e30}) {
    ExpectExact(z * scale, e * scale, "both " + std::to_string(scale));
    ExpectExact(z * scale, e, "features " + std::to_string(scale));
    ExpectExact(z, e * scale, "codes " + std::to_string(scale));
  }
  const at::Tensor codes = AssignNearest(z.cuda().t().contiguous().t(),
                                         e.cuda().slice(0, 0, 170, 3));
  EXPECT_TRUE(
      at::equal(codes.cpu(), AssignNearestReference(z, e.slice(0, 0, 170, 3))));
}

TEST_F(CudaKernelsTest, AssignsNonFiniteInput) {
  at::Tensor z = at::randn({200, 5}), e = at::randn({150, 5});
  z[4][0] = std::numeric_limits<float>::quiet_NaN();
  z[5][1] = std::numeric_limits<float>::infinity();
  e[0][1] = std::numeric_limits<float>::quiet_NaN();
  e[2][0] = -std::numeric_limits<float>::infinity();
  ExpectExact(z, e, "some");
  ExpectExact(z, e * std::numeric_limits<float>::quiet_NaN(), "all codes");
}

TEST_F(CudaKernelsTest, AssignsGroups) {
  const at::Tensor z = at::randn({70, 3, 8}), e = at::randn({3, 90, 8});
  EXPECT_TRUE(at::equal(AssignNearestGrouped(z.cuda(), e.cuda()).cpu(),
                        AssignNearestGrouped(z, e)));
}

TEST_F(CudaKernelsTest, CountsAndSumsToTheBit) {
  for (at::ScalarType type :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (int64_t d : {1, 7, 300}) {
      const at::Tensor z = at::randn({3000, d}).to(type);
      const at::Tensor codes = at::randint(-1, 90, {3000}, at::kLong);
      const CodeSums got = CodeStatistics(z.cuda(), codes.cuda(), 100);
      const CodeSums want = CodeStatisticsReference(z, codes, 100);
      EXPECT_TRUE(at::equal(got.counts.cpu(), want.counts));
      EXPECT_TRUE(at::equal(got.sums.cpu(), want.sums)) << type << " " << d;
      EXPECT_TRUE(at::equal(Histogram(codes.cuda(), 100).cpu(), want.counts));
    }
  }
  const CodeSums none = CodeStatistics(at::zeros({0, 3}).cuda(),
                                       at::zeros({0}, at::kLong).cuda(), 4);
  EXPECT_EQ(none.counts.sum().item<int64_t>(), 0);
  EXPECT_EQ(none.sums.abs().sum().item<double>(), 0);
}

TEST_F(CudaKernelsTest, LooksUpAndGoesBack) {
  const at::Tensor codes = at::randint(-1, 40, {500}, at::kLong);
  const at::Tensor weights = at::randn({500, 6});
  const at::Tensor e = at::randn({40, 6});
  const at::Tensor leaf = e.cuda().requires_grad_();
  const at::Tensor got = LookupCodes(leaf, codes.cuda());
  EXPECT_TRUE(at::equal(got.detach().cpu(), LookupReference(e, codes)));
  (got * weights.cuda()).sum().backward();
  EXPECT_TRUE(at::equal(leaf.grad().cpu(),
                        CodeStatisticsReference(weights, codes, 40).sums));
}

TEST_F(CudaKernelsTest, StepsKMeans) {
  const at::Tensor points = at::randn({2000, 9}), centers = at::randn({50, 9});
  const KMeansStepResult got = KMeansStep(points.cuda(), centers.cuda());
  const KMeansStepResult want = KMeansStepReference(points, centers);
  EXPECT_TRUE(at::equal(got.codes.cpu(), want.codes));
  EXPECT_TRUE(at::equal(got.counts.cpu(), want.counts));
  EXPECT_TRUE(at::allclose(got.centers.cpu(), want.centers, 1e-6, 1e-6));
}

}  // namespace
}  // namespace semvq
