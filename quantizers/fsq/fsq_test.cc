#include "quantizers/fsq/fsq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

FsqConfig Config(const std::vector<int64_t>& levels) {
  FsqConfig config;
  for (const int64_t l : levels) config.add_levels(l);
  return config;
}

absl::StatusOr<std::shared_ptr<Quantizer>> Try(const FsqConfig& config,
                                               int64_t dim) {
  Contract host;
  host.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.book = &book;
  return MakeFsq(config, context);
}

std::shared_ptr<Quantizer> Make(const std::vector<int64_t>& levels) {
  auto made = Try(Config(levels), static_cast<int64_t>(levels.size()));
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

QuantizeContext Train(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.step = step;
  return context;
}

// Appendix A.1, number by number.
TEST(FsqTest, FollowsTheFormula) {
  at::manual_seed(1);
  const std::vector<int64_t> levels = {8, 5, 3, 2, 4};
  auto q = Make(levels);
  const at::Tensor z = 2 * at::randn({2, 30, 5}, at::kDouble);
  const Quantized out = q->Quantize(z, QuantizeContext());
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t n = 0; n < 30; ++n) {
      int64_t code = 0, basis = 1;
      for (int64_t d = 0; d < 5; ++d) {
        const double l = static_cast<double>(levels[d]);
        const double h = (l - 1) * 1.001 / 2, o = levels[d] % 2 ? 0 : 0.5;
        const double bounded =
            std::tanh(z[b][n][d].item<double>() + std::atanh(o / h)) * h - o;
        const double level = std::nearbyint(bounded);
        const int64_t half = levels[d] / 2;
        EXPECT_EQ(out.vectors[b][n][d].item<double>(),
                  level / static_cast<double>(half));
        code += (static_cast<int64_t>(level) + half) * basis;
        basis *= levels[d];
      }
      EXPECT_EQ(out.codes[b][n][0].item<int64_t>(), code);
    }
  }
  EXPECT_TRUE(out.losses.empty());
}

TEST(FsqTest, EveryCodeHasAPointOfItsOwn) {
  auto q = Make({3, 4, 2});
  const at::Tensor codes = at::arange(24, at::kLong).view({24, 1});
  const at::Tensor points = q->Lookup(codes);
  EXPECT_EQ(points.sizes().vec(), (std::vector<int64_t>{24, 3}));
  EXPECT_LE(points.abs().max().item<double>(), 1);
  std::set<std::vector<double>> seen;
  for (int64_t c = 0; c < 24; ++c) {
    seen.insert({points[c][0].item<double>(), points[c][1].item<double>(),
                 points[c][2].item<double>()});
  }
  EXPECT_EQ(seen.size(), 24u);
  EXPECT_TRUE(
      at::equal(points[0], at::tensor({-1.0, -1.0, -1.0}, at::kDouble)));
  // The first dimension counts fastest.
  EXPECT_TRUE(at::equal(points[1], at::tensor({0.0, -1.0, -1.0}, at::kDouble)));
  EXPECT_TRUE(
      at::equal(points[3], at::tensor({-1.0, -0.5, -1.0}, at::kDouble)));
  EXPECT_TRUE(at::equal(points[23], at::tensor({1.0, 0.5, 0.0}, at::kDouble)));
}

TEST(FsqTest, FarFeaturesGetTheOutermostLevels) {
  auto q = Make({1000, 999, 2, 5});
  for (const double far :
       {20.0, 1e30, std::numeric_limits<double>::infinity()}) {
    const at::Tensor z = at::full({1, 1, 4}, far, at::kDouble);
    EXPECT_EQ(q->Quantize(z, QuantizeContext()).codes.item<int64_t>(),
              1000 * 999 * 2 * 5 - 1);
    EXPECT_EQ(q->Quantize(-z, QuantizeContext()).codes.item<int64_t>(), 0);
  }
}

TEST(FsqTest, TheGradientIsThatOfTheBoundedFeature) {
  at::manual_seed(2);
  auto q = Make({8, 5});
  at::Tensor z = at::randn({1, 9, 2}, at::kDouble).requires_grad_();
  const at::Tensor weights = at::randn({1, 9, 2}, at::kDouble);
  (q->Quantize(z, Train(0)).vectors * weights).sum().backward();
  const at::Tensor h = at::tensor({7 * 1.001 / 2, 4 * 1.001 / 2}, at::kDouble);
  const at::Tensor o = at::tensor({0.5, 0.0}, at::kDouble);
  const at::Tensor half = at::tensor({4.0, 2.0}, at::kDouble);
  at::Tensor same = z.detach().clone().requires_grad_();
  const at::Tensor bounded = (at::tanh(same + at::atanh(o / h)) * h - o) / half;
  (bounded * weights).sum().backward();
  EXPECT_TRUE(at::allclose(z.grad(), same.grad(), 1e-12, 1e-14));
}

TEST(FsqTest, CountsItsCodesOrEstimatesTheirNumber) {
  auto named = [](const NamedTensors& values, const std::string& name) {
    for (const auto& [key, value] : values) {
      if (key == name) return value.item<double>();
    }
    return -1.0;
  };
  auto q = Make({2, 2});
  // Two of the four codes, half each: the threshold of 2 levels is at -3.8.
  const at::Tensor z =
      at::tensor({0.0, 0.0, -9.0, 0.0}, at::kDouble).view({1, 2, 2});
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_NEAR(named(out.metrics, "perplexity"), 2, 1e-6);
  EXPECT_EQ(named(out.metrics, "usage"), 0.5);
  ASSERT_TRUE(q->AfterStep(Train(1)).ok());
  EXPECT_EQ(named(q->Quantize(-z, Train(1)).metrics, "usage"), 0.5);

  auto large = Make({1000, 1000, 5});
  const NamedTensors metrics =
      large->Quantize(at::zeros({1, 2, 3}, at::kDouble), Train(0)).metrics;
  EXPECT_EQ(named(metrics, "usage"), -1);
  EXPECT_NEAR(named(metrics, "codes_in_batch_estimate"), 1, 0.1);
  EXPECT_NEAR(named(metrics, "usage_estimate"), 1 / 5e6, 0.1 / 5e6);
  EXPECT_NEAR(named(metrics, "perplexity_at_least"), 1, 1e-6);
  EXPECT_GE(named(metrics, "quantization_error"), 0);
  EXPECT_TRUE(large->AfterStep(Train(1)).ok());
}

TEST(FsqTest, OneDimensionAndNoPositions) {
  auto q = Make({3});
  const at::Tensor z = at::tensor({-2.0, 0.1, 2.0}, at::kDouble);
  const Quantized out = q->Quantize(z.view({1, 3, 1}), Train(0));
  EXPECT_TRUE(
      at::equal(out.codes.view({-1}), at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(out.vectors.view({-1}),
                        at::tensor({-1.0, 0.0, 1.0}, at::kDouble)));
  const Quantized empty =
      q->Quantize(at::zeros({2, 0, 1}, at::kDouble), Train(0));
  EXPECT_EQ(empty.codes.sizes().vec(), (std::vector<int64_t>{2, 0, 1}));
}

TEST(FsqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateFsq(Config({8, 5, 5, 5})).ok());
  const auto message = [](const FsqConfig& config) {
    return std::string(ValidateFsq(config).message());
  };
  EXPECT_EQ(message(FsqConfig()).substr(0, 7), "levels:");
  EXPECT_EQ(message(Config({5, 1})), "levels[1]: got 1, expected 2 to 1000");
  EXPECT_EQ(message(Config({-3})), "levels[0]: got -3, expected 2 to 1000");
  EXPECT_NE(message(Config({1000, 1000, 1000, 1000})).find("a product"),
            std::string::npos);
  FsqConfig window = Config({5});
  window.set_usage_window(0);
  EXPECT_EQ(message(window).substr(0, 13), "usage_window:");

  const auto made = Try(Config({5, 5}), 3);
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(made.status().message().find("the features have 3 dimensions"),
            absl::string_view::npos);
  EXPECT_EQ(
      FsqContract("x", Config({5, 4}), ContractBook()).Find(kQuantized)->dim,
      2);
}

}  // namespace
}  // namespace semvq
