#include "kernels/assign.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <time.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/grouped.h"

namespace semvq {
namespace {

// Written again, and differently, from the definition in the header.
std::vector<int64_t> Oracle(const at::Tensor& features,
                            const at::Tensor& codebook, Metric metric) {
  const at::Tensor z = features.to(at::kDouble).contiguous();
  const at::Tensor e = codebook.to(at::kDouble).contiguous();
  const int64_t dim = z.size(1);
  std::vector<int64_t> out;
  for (int64_t i = 0; i < z.size(0); ++i) {
    const double* a = z.data_ptr<double>() + i * dim;
    std::vector<double> cost;
    for (int64_t k = 0; k < e.size(0); ++k) {
      const double* b = e.data_ptr<double>() + k * dim;
      double squared = 0, dot = 0, norm = 0;
      for (int64_t d = 0; d < dim; ++d) {
        squared += (a[d] - b[d]) * (a[d] - b[d]);
        dot += a[d] * b[d];
        norm += b[d] * b[d];
      }
      if (metric == Metric::kCosine)
        cost.push_back(norm > 0 ? -dot / std::sqrt(norm) : 0);
      else
        cost.push_back(squared);
    }
    out.push_back(std::min_element(cost.begin(), cost.end()) - cost.begin());
  }
  return out;
}

std::vector<int64_t> ToVector(const at::Tensor& codes) {
  const at::Tensor c = codes.contiguous();
  return {c.data_ptr<int64_t>(), c.data_ptr<int64_t>() + c.numel()};
}

std::vector<std::string> Kernels() {
  std::vector<std::string> names = {"generic"};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    names.push_back("avx2");
  if (__builtin_cpu_supports("avx512f")) names.push_back("avx512");
#endif
  return names;
}

void ExpectAllAgree(const at::Tensor& features, const at::Tensor& codebook,
                    const std::string& what) {
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    const std::vector<int64_t> expected = Oracle(features, codebook, metric);
    const std::string where =
        what + (metric == Metric::kL2 ? " l2" : " cosine");
    EXPECT_EQ(ToVector(AssignNearestReference(features, codebook, metric)),
              expected)
        << where;
    for (const std::string& name : Kernels()) {
      EXPECT_EQ(ToVector(internal::AssignNearestCpu(features, codebook, metric,
                                                    name.c_str())),
                expected)
          << where << " " << name;
    }
  }
}

struct Shape {
  int64_t n, k, d;
};

TEST(AssignTest, RandomShapesMatchTheOracle) {
  at::manual_seed(1);
  for (const Shape& s :
       {Shape{1, 1, 1}, Shape{7, 3, 1}, Shape{13, 31, 2}, Shape{96, 32, 5},
        Shape{97, 33, 8}, Shape{200, 257, 16}, Shape{64, 1000, 33},
        Shape{131, 64, 300}, Shape{500, 5, 3}, Shape{3, 2049, 24}}) {
    const at::Tensor z = at::randn({s.n, s.d});
    const at::Tensor e = at::randn({s.k, s.d});
    ExpectAllAgree(z, e, "random " + std::to_string(s.n));
    ExpectAllAgree(z + 30, e + 30, "offset " + std::to_string(s.n));
    // So far from the origin that float32 scores tell nothing.
    ExpectAllAgree(z + 3e4, e + 3e4, "far " + std::to_string(s.n));
  }
}

TEST(AssignTest, ExactTiesGoToTheLowestIndex) {
  at::manual_seed(2);
  // Small integers: float64 is exact, so ties are, and there are many.
  const at::Tensor z = at::randint(-2, 3, {300, 4}).to(at::kFloat);
  const at::Tensor e = at::randint(-2, 3, {400, 4}).to(at::kFloat);
  ExpectAllAgree(z, e, "integers");
  const at::Tensor codes = AssignNearest(z, e.repeat({3, 1}));
  EXPECT_LT(codes.max().item<int64_t>(), 400);
  // More equal codes than a row has room for candidates.
  ExpectAllAgree(z, at::ones({100, 4}), "all equal");
  EXPECT_EQ(AssignNearest(z, at::ones({100, 4})).max().item<int64_t>(), 0);
}

TEST(AssignTest, NearTiesAreDecidedInFloat64) {
  at::manual_seed(3);
  // Codes a few float32 steps apart, and features right between them.
  const at::Tensor base = at::randn({40, 24});
  std::vector<at::Tensor> codes;
  for (int i = 0; i < 12; ++i) codes.push_back(base * (1 + 1.2e-7 * (i - 6)));
  const at::Tensor e = at::cat(codes);
  const at::Tensor z = at::cat({base, base * (1 + 0.6e-7), base * 1.001});
  ExpectAllAgree(z, e, "float32 steps");
  // Finer than float32 can hold.
  const at::Tensor wide = base.to(at::kDouble);
  const at::Tensor fine =
      at::cat({wide, wide * (1 + 1e-12), wide * (1 - 1e-12)});
  ExpectAllAgree(wide * (1 + 0.7e-12), fine, "float64 steps");
  EXPECT_GE(AssignNearest(wide * (1 + 0.7e-12), fine).min().item<int64_t>(),
            40);
}

TEST(AssignTest, AllDtypesAndLayouts) {
  at::manual_seed(4);
  const at::Tensor z = at::randn({90, 12});
  const at::Tensor e = at::randn({70, 12});
  for (at::ScalarType a : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    for (at::ScalarType b :
         {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
      ExpectAllAgree(z.to(a), e.to(b), "dtypes");
    }
  }
  ExpectAllAgree(z.t().contiguous().t(), e.slice(0, 0, 70, 3), "strides");
  EXPECT_EQ(AssignNearest(z.requires_grad_(), e).requires_grad(), false);
}

TEST(AssignTest, ExtremeMagnitudes) {
  at::manual_seed(5);
  for (double scale : {1e-30, 1e-20, 1e-10, 1e10, 1e18, 1e30}) {
    const at::Tensor z = at::randn({50, 6});
    const at::Tensor e = at::randn({40, 6});
    ExpectAllAgree(z * scale, e * scale, "both " + std::to_string(scale));
    ExpectAllAgree(z * scale, e, "features " + std::to_string(scale));
    ExpectAllAgree(z, e * scale, "codes " + std::to_string(scale));
  }
  at::Tensor mixed = at::randn({40, 6});
  mixed[7] *= 1e30;
  mixed[9] = 0;
  ExpectAllAgree(at::cat({at::randn({30, 6}), at::zeros({2, 6}), mixed}), mixed,
                 "mixed");
}

TEST(AssignTest, NoFeaturesGiveNoCodes) {
  const at::Tensor codes = AssignNearest(at::zeros({0, 3}), at::ones({2, 3}));
  EXPECT_EQ(codes.sizes(), at::IntArrayRef({0}));
  EXPECT_EQ(codes.scalar_type(), at::kLong);
}

TEST(AssignTest, NonFiniteInputStaysInRange) {
  at::manual_seed(6);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  at::Tensor z = at::randn({30, 5});
  at::Tensor e = at::randn({50, 5});
  const at::Tensor clean = AssignNearestReference(z, e.slice(0, 3));
  e[0][1] = nan;
  e[1][2] = inf;
  e[2][0] = -inf;
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    const at::Tensor expected =
        AssignNearestReference(z, e.slice(0, 3), metric) + 3;
    for (const std::string& name : Kernels()) {
      EXPECT_TRUE(at::equal(
          internal::AssignNearestCpu(z, e, metric, name.c_str()), expected));
    }
    EXPECT_TRUE(at::equal(AssignNearestReference(z, e, metric), expected));
    EXPECT_TRUE(at::equal(AssignNearestAten(z, e, metric), expected));
    at::Tensor bad = z.clone();
    bad[4][0] = nan;
    bad[5][1] = inf;
    at::Tensor with_zero = expected.clone();
    with_zero[4] = 0;
    with_zero[5] = 0;
    EXPECT_TRUE(at::equal(AssignNearest(bad, e, metric), with_zero));
    EXPECT_TRUE(at::equal(AssignNearestReference(bad, e, metric), with_zero));
    EXPECT_TRUE(at::equal(AssignNearestAten(bad, e, metric), with_zero));
    EXPECT_EQ(AssignNearest(z, e * nan, metric).abs().max().item<int64_t>(), 0);
  }
}

TEST(AssignTest, AtenPathMatches) {
  at::manual_seed(7);
  // Large enough to be cut into several chunks.
  const at::Tensor z = at::randn({700, 32});
  const at::Tensor e = at::randn({1500, 32});
  const at::Tensor integers = at::randint(-1, 2, {200, 3}).to(at::kFloat);
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    EXPECT_TRUE(at::equal(AssignNearestAten(z, e, metric),
                          AssignNearest(z, e, metric)));
  }
  EXPECT_TRUE(at::equal(AssignNearestAten(integers, integers),
                        AssignNearest(integers, integers)));
}

TEST(AssignTest, GroupsAndBatchesAreSearchedApart) {
  at::manual_seed(10);
  const at::Tensor z = at::randn({5, 9, 3, 4});  // [..., G, D]
  const at::Tensor e = at::randn({3, 17, 4});
  for (Metric metric : {Metric::kL2, Metric::kCosine}) {
    const at::Tensor codes = AssignNearestGrouped(z, e, metric);
    ASSERT_EQ(codes.sizes(), at::IntArrayRef({5, 9, 3}));
    for (int64_t g = 0; g < 3; ++g) {
      EXPECT_EQ(ToVector(codes.select(2, g).reshape({-1})),
                Oracle(z.select(2, g).reshape({-1, 4}), e[g], metric));
    }
    const at::Tensor batch = z.reshape({45, 3, 4}).transpose(0, 1);
    const at::Tensor each = AssignNearestBatched(batch, e, metric);
    EXPECT_TRUE(at::equal(each.t().reshape({5, 9, 3}), codes));
  }
  EXPECT_EQ(AssignNearestGrouped(z.slice(0, 0, 0), e).numel(), 0);
  EXPECT_THROW(AssignNearestGrouped(z, e.slice(0, 1)), c10::Error);
  EXPECT_THROW(AssignNearestGrouped(z, e[0]), c10::Error);
  EXPECT_THROW(AssignNearestBatched(z[0], e), c10::Error);
}

TEST(AssignTest, ThreadsDoNotMatter) {
  at::manual_seed(8);
  const at::Tensor z = at::randn({2000, 16});
  const at::Tensor e = at::randn({300, 16});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = AssignNearest(z, e);
  at::set_num_threads(3);
  const at::Tensor three = AssignNearest(z, e);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

double CpuSeconds(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) +
         1e-9 * static_cast<double>(time.tv_nsec);
}

// Compiled without OpenMP, at::parallel_for silently runs on one thread.
TEST(AssignTest, ThreadsShareTheWork) {
  at::manual_seed(9);
  const at::Tensor z = at::randn({6000, 64});
  const at::Tensor e = at::randn({2000, 64});
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  AssignNearest(z, e);
  const double process = CpuSeconds(CLOCK_PROCESS_CPUTIME_ID);
  const double self = CpuSeconds(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < 5; ++i) AssignNearest(z, e);
  const double others = CpuSeconds(CLOCK_PROCESS_CPUTIME_ID) - process -
                        (CpuSeconds(CLOCK_THREAD_CPUTIME_ID) - self);
  const double mine = CpuSeconds(CLOCK_THREAD_CPUTIME_ID) - self;
  at::set_num_threads(threads);
  EXPECT_GT(others, 0.2 * mine);
}

TEST(AssignTest, BadInputIsRefused) {
  const at::Tensor z = at::zeros({2, 3});
  EXPECT_THROW(AssignNearest(z, at::zeros({4, 2})), c10::Error);
  EXPECT_THROW(AssignNearest(z, at::zeros({0, 3})), c10::Error);
  EXPECT_THROW(AssignNearest(z[0], at::zeros({4, 3})), c10::Error);
  EXPECT_THROW(AssignNearest(z.to(at::kLong), at::zeros({4, 3})), c10::Error);
  EXPECT_THROW(AssignNearest(at::zeros({2, 0}), at::zeros({4, 0})), c10::Error);
}

TEST(AssignTest, TheBestKernelIsChosen) {
  EXPECT_EQ(std::string(AssignKernelName()), Kernels().back());
}

}  // namespace
}  // namespace semvq
