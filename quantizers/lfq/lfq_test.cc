#include "quantizers/lfq/lfq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

LfqConfig Config(int64_t bits, double inverse_temperature) {
  LfqConfig config;
  config.set_bits(bits);
  config.set_inverse_temperature(inverse_temperature);
  return config;
}

std::shared_ptr<Quantizer> Make(const LfqConfig& config) {
  Contract host;
  host.provides = {{kQuantized, config.bits()}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.book = &book;
  auto made = MakeLfq(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

QuantizeContext Train() {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  return context;
}

at::Tensor Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "nothing is named " << name;
  return at::zeros({});
}

TEST(LfqTest, TheSignsAreTheCode) {
  auto q = Make(Config(3, 100));
  const at::Tensor z =
      at::tensor({0.2, -3.0, 1e-9, -1.0, 0.0, 5.0}, at::kDouble)
          .view({1, 2, 3});
  const Quantized out = q->Quantize(z, QuantizeContext());
  EXPECT_TRUE(at::equal(out.codes.view({-1}), at::tensor({5, 1}, at::kLong)));
  EXPECT_TRUE(
      at::equal(out.vectors.view({-1}),
                at::tensor({1.0, -1.0, 1.0, -1.0, -1.0, 1.0}, at::kDouble)));
}

// The softmax over all codes, written out.
TEST(LfqTest, LossesFollowTheFormula) {
  at::manual_seed(1);
  LfqConfig config = Config(4, 0.7);
  config.set_gamma(1.5);
  auto q = Make(config);
  const at::Tensor z = at::randn({2, 5, 4}, at::kDouble);
  const Quantized out = q->Quantize(z, Train());
  const at::Tensor codes =
      q->Lookup(at::arange(16, at::kLong).view({16, 1}));  // [16, 4]
  const at::Tensor p =
      at::softmax(2 * 0.7 * at::matmul(z.view({10, 4}), codes.t()), -1);
  const double token = -at::xlogy(p, p).sum(1).mean().item<double>();
  const at::Tensor mean = p.mean(0);
  const double batch = -at::xlogy(mean, mean).sum().item<double>();
  EXPECT_NEAR(Named(out.losses, "entropy").item<double>(), token - 1.5 * batch,
              1e-10);
  EXPECT_NEAR(Named(out.metrics, "token_entropy").item<double>(), token, 1e-10);
  EXPECT_NEAR(Named(out.metrics, "batch_entropy").item<double>(), batch, 1e-10);
  EXPECT_NEAR(Named(out.losses, "commitment").item<double>(),
              (z - z.sign()).square().mean().item<double>(), 1e-12);
}

TEST(LfqTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  for (const int64_t entropy_bits : {1, 3, 5}) {
    LfqConfig config = Config(5, 0.4);
    config.set_entropy_bits(entropy_bits);
    auto q = Make(config);
    QuantizeContext context = Train();
    context.valid = at::ones({2, 4}, at::kBool);
    context.valid[1][1] = false;
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& x) {
          const Quantized out = q->Quantize(x[0], context);
          return at::stack(
              {Named(out.losses, "entropy"), Named(out.losses, "commitment")});
        },
        {at::randn({2, 4, 5}, at::kDouble).requires_grad_()});
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(LfqTest, TheGradientIsCopied) {
  auto q = Make(Config(3, 100));
  at::Tensor z = at::randn({1, 7, 3}, at::kDouble).requires_grad_();
  const at::Tensor weights = at::randn({1, 7, 3}, at::kDouble);
  (q->Quantize(z, Train()).vectors * weights).sum().backward();
  EXPECT_TRUE(at::allclose(z.grad(), weights));
}

TEST(LfqTest, ThirtyBitsAreNoMatter) {
  LfqConfig config = Config(30, 100);
  config.set_entropy_bits(10);
  auto q = Make(config);
  const at::Tensor z = at::ones({1, 2, 30}, at::kDouble);
  const Quantized out = q->Quantize(z, Train());
  EXPECT_EQ(out.codes[0][0][0].item<int64_t>(), (int64_t{1} << 30) - 1);
  EXPECT_NEAR(Named(out.metrics, "batch_entropy").item<double>(), 0, 1e-6);
  EXPECT_TRUE(q->AfterStep(Train()).ok());
}

TEST(LfqTest, OneBitAndNoPositions) {
  auto q = Make(Config(1, 2));
  const at::Tensor z = at::tensor({-2.0, 0.0, 0.3}, at::kDouble);
  const Quantized out = q->Quantize(z.view({1, 3, 1}), Train());
  EXPECT_TRUE(
      at::equal(out.codes.view({-1}), at::tensor({0, 0, 1}, at::kLong)));
  EXPECT_TRUE(at::equal(out.vectors.view({-1}),
                        at::tensor({-1.0, -1.0, 1.0}, at::kDouble)));
  const Quantized empty =
      q->Quantize(at::zeros({2, 0, 1}, at::kDouble), Train());
  EXPECT_EQ(Named(empty.losses, "entropy").item<double>(), 0);
  EXPECT_EQ(Named(empty.losses, "commitment").item<double>(), 0);
}

TEST(LfqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateLfq(LfqConfig()).ok());
  using Change = void (*)(LfqConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"bits", [](LfqConfig& c) { c.set_bits(0); }},
      {"bits", [](LfqConfig& c) { c.set_bits(31); }},
      {"inverse_temperature",
       [](LfqConfig& c) { c.set_inverse_temperature(0); }},
      {"gamma", [](LfqConfig& c) { c.set_gamma(-1); }},
      {"entropy_bits", [](LfqConfig& c) { c.set_entropy_bits(0); }},
      {"usage_window", [](LfqConfig& c) { c.set_usage_window(0); }}};
  for (const auto& [field, change] : bad) {
    LfqConfig config;
    change(config);
    const absl::Status status = ValidateLfq(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
  PluginContext context;
  context.instance = "codebook";
  EXPECT_FALSE(MakeLfq(LfqConfig(), context).ok());
}

}  // namespace
}  // namespace semvq
