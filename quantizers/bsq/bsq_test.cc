#include "quantizers/bsq/bsq.h"

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

BsqConfig Config(int64_t bits, double inverse_temperature) {
  BsqConfig config;
  config.set_bits(bits);
  config.set_inverse_temperature(inverse_temperature);
  return config;
}

std::shared_ptr<Quantizer> Make(const BsqConfig& config) {
  Contract host;
  host.provides = {{kQuantized, config.bits()}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.book = &book;
  auto made = MakeBsq(config, context);
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

TEST(BsqTest, VectorsAreCornersOfTheInscribedCube) {
  auto q = Make(Config(4, 1));
  const at::Tensor z =
      at::tensor({0.2, -3.0, 1e-9, 1.0, 0.0, 0.0, 0.0, 0.0}, at::kDouble)
          .view({1, 2, 4});
  const Quantized out = q->Quantize(z, QuantizeContext());
  EXPECT_TRUE(at::equal(out.codes.view({-1}), at::tensor({11, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(
      out.vectors.view({-1}),
      at::tensor({0.5, -0.5, 0.5, 0.5, -0.5, -0.5, -0.5, -0.5}, at::kDouble)));
}

// The softmax over all corners, written out.
TEST(BsqTest, LossesFollowTheFormula) {
  at::manual_seed(1);
  BsqConfig config = Config(4, 0.7);
  config.set_gamma0(0.6);
  config.set_gamma(1.5);
  config.set_entropy_bits(4);
  auto q = Make(config);
  const at::Tensor z = 3 * at::randn({2, 5, 4}, at::kDouble);
  const at::Tensor u = (z / z.norm(2, -1, true)).view({10, 4});
  const Quantized out = q->Quantize(z, Train());
  const at::Tensor codes = q->Lookup(at::arange(16, at::kLong).view({16, 1}));
  const at::Tensor p = at::softmax(2 * 0.7 * at::matmul(u, codes.t()), -1);
  const double token = -at::xlogy(p, p).sum(1).mean().item<double>();
  const at::Tensor mean = p.mean(0);
  const double batch = -at::xlogy(mean, mean).sum().item<double>();
  EXPECT_NEAR(Named(out.losses, "entropy").item<double>(),
              0.6 * token - 1.5 * batch, 1e-10);
  EXPECT_NEAR(Named(out.losses, "commitment").item<double>(),
              (u - u.sign() / 2).square().mean().item<double>(), 1e-12);
  // Bit by bit, the paper's factorisation: the marginals' entropies.
  config.set_entropy_bits(1);
  const at::Tensor one = at::sigmoid(4 * 0.7 * u / 2).mean(0);
  const double marginals =
      -(at::xlogy(one, one) + at::xlogy(1 - one, 1 - one)).sum().item<double>();
  EXPECT_NEAR(Named(Make(config)->Quantize(z, Train()).metrics, "batch_entropy")
                  .item<double>(),
              marginals, 1e-10);
}

// Bit by bit, two bits that are always equal look like two fair ones.
TEST(BsqTest, ByDefaultBitsThatRepeatEachOtherAreSeen) {
  BsqConfig config;
  config.set_bits(2);
  const at::Tensor z =
      at::tensor({1.0, 1.0, -1.0, -1.0}, at::kDouble).view({1, 2, 2});
  const auto entropy = [&] {
    return Named(Make(config)->Quantize(z, Train()).metrics, "batch_entropy")
        .item<double>();
  };
  EXPECT_NEAR(entropy(), std::log(2), 1e-3);
  config.set_entropy_bits(1);
  EXPECT_NEAR(entropy(), 2 * std::log(2), 1e-9);
  // Where p says little, the joint entropy does not see it either.
  config.set_entropy_bits(9);
  config.set_inverse_temperature(0.1);
  EXPECT_GT(entropy(), 1.9 * std::log(2));
}

TEST(BsqTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  for (const int64_t entropy_bits : {1, 3, 5}) {
    BsqConfig config = Config(5, 0.4);
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

TEST(BsqTest, TheGradientIsCopiedToTheUnitVector) {
  at::manual_seed(3);
  auto q = Make(Config(3, 1));
  at::Tensor z = at::randn({1, 7, 3}, at::kDouble).requires_grad_();
  const at::Tensor weights = at::randn({1, 7, 3}, at::kDouble);
  (q->Quantize(z, Train()).vectors * weights).sum().backward();
  at::Tensor same = z.detach().clone().requires_grad_();
  (same / same.norm(2, -1, true) * weights).sum().backward();
  EXPECT_TRUE(at::allclose(z.grad(), same.grad(), 1e-10, 1e-12));
}

TEST(BsqTest, LengthDoesNotMatter) {
  at::manual_seed(4);
  auto q = Make(Config(6, 1));
  const at::Tensor z = at::randn({1, 9, 6}, at::kDouble);
  const Quantized one = q->Quantize(z, Train());
  for (const double length : {1e-30, 1e30}) {
    const Quantized other = q->Quantize(z * length, Train());
    EXPECT_TRUE(at::equal(one.codes, other.codes));
    EXPECT_NEAR(Named(one.losses, "entropy").item<double>(),
                Named(other.losses, "entropy").item<double>(), 1e-9);
  }
}

TEST(BsqTest, ThirtyBitsAreNoMatter) {
  BsqConfig config = Config(30, 1000);
  config.set_entropy_bits(10);
  auto q = Make(config);
  const at::Tensor z = at::ones({1, 2, 30}, at::kDouble);
  const Quantized out = q->Quantize(z, Train());
  EXPECT_EQ(out.codes[0][0][0].item<int64_t>(), (int64_t{1} << 30) - 1);
  EXPECT_NEAR(Named(out.metrics, "batch_entropy").item<double>(), 0, 1e-6);
  EXPECT_TRUE(q->AfterStep(Train()).ok());
}

TEST(BsqTest, OneBitAndNoPositions) {
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

TEST(BsqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateBsq(BsqConfig()).ok());
  using Change = void (*)(BsqConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"bits", [](BsqConfig& c) { c.set_bits(0); }},
      {"bits", [](BsqConfig& c) { c.set_bits(31); }},
      {"inverse_temperature",
       [](BsqConfig& c) { c.set_inverse_temperature(0); }},
      {"gamma0", [](BsqConfig& c) { c.set_gamma0(-1); }},
      {"gamma", [](BsqConfig& c) { c.set_gamma(-1); }},
      {"entropy_bits", [](BsqConfig& c) { c.set_entropy_bits(0); }},
      {"usage_window", [](BsqConfig& c) { c.set_usage_window(0); }}};
  for (const auto& [field, change] : bad) {
    BsqConfig config;
    change(config);
    const absl::Status status = ValidateBsq(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
  PluginContext context;
  context.instance = "codebook";
  EXPECT_FALSE(MakeBsq(BsqConfig(), context).ok());
}

}  // namespace
}  // namespace semvq
