#include "quantizers/vq/vq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/draws.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

VqConfig Plain(int64_t num_codes) {
  VqConfig config;
  config.set_num_codes(num_codes);
  config.mutable_codebook()->set_reservoir(64);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.mutable_codebook()->set_revive_after(0);
  return config;
}

std::shared_ptr<Quantizer> Make(const VqConfig& config, int64_t dim) {
  Contract host;
  host.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.seed = 5;
  context.book = &book;
  auto made = MakeVq(config, context);
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

at::Tensor Codebook(Quantizer& quantizer) {
  return quantizer.named_parameters()["codebook"];
}

at::Tensor Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "nothing is named " << name;
  return {};
}

// Equation 3 of the paper, feature by feature: values and who gets a gradient.
TEST(VqTest, LossesFollowTheFormula) {
  at::manual_seed(1);
  const int64_t k = 5, d = 3;
  auto q = Make(Plain(k), d);
  at::Tensor e = Codebook(*q);
  at::Tensor z = at::randn({2, 4, d}, at::kDouble).requires_grad_();
  const Quantized out = q->Quantize(z, Train(0));
  double squared = 0;
  at::Tensor to_features = at::zeros({8, d}, at::kDouble);
  at::Tensor to_codes = at::zeros({k, d}, at::kDouble);
  for (int64_t i = 0; i < 8; ++i) {
    const at::Tensor row = z.detach().view({8, d})[i];
    const at::Tensor distance = (e.detach() - row).square().sum(1);
    const int64_t j = distance.argmin().item<int64_t>();
    ASSERT_EQ(out.codes.view({8})[i].item<int64_t>(), j);
    squared += distance[j].item<double>();
    to_features[i] = 2 * (row - e.detach()[j]) / (8 * d);
    to_codes[j] += 2 * (e.detach()[j] - row) / (8 * d);
  }
  ASSERT_EQ(out.losses.size(), 2u);
  Named(out.losses, "codebook").backward();
  EXPECT_FALSE(z.grad().defined());
  EXPECT_TRUE(at::allclose(e.grad(), to_codes, 1e-10, 1e-12));
  e.mutable_grad() = at::Tensor();
  Named(out.losses, "commitment").backward();
  EXPECT_FALSE(e.grad().defined() && e.grad().abs().sum().item<double>() > 0);
  EXPECT_TRUE(at::allclose(z.grad().view({8, d}), to_features, 1e-10, 1e-12));
  for (const char* name : {"codebook", "commitment"}) {
    EXPECT_NEAR(Named(out.losses, name).item<double>(), squared / (8 * d),
                1e-12);
  }
}

TEST(VqTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  for (auto metric : {CodebookOptions::L2, CodebookOptions::COSINE}) {
    VqConfig config = Plain(5);
    config.mutable_codebook()->set_metric(metric);
    auto q = Make(config, 3);
    // Where autograd stops the gradient, the check must not look.
    for (const bool codes : {true, false}) {
      at::Tensor e = Codebook(*q), z = at::randn({1, 6, 3}, at::kDouble);
      e.requires_grad_(codes);
      z.requires_grad_(!codes);
      const absl::Status status = NumericGradientCheck(
          [&](const std::vector<at::Tensor>& x) {
            return Named(q->Quantize(x[0], Train(0)).losses,
                         codes ? "codebook" : "commitment");
          },
          {z, e});
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

// What comes back is the gradient at the code; the loss itself, a step function
// of the features, has none.
TEST(VqTest, StraightThroughIsNotTheGradient) {
  at::manual_seed(3);
  auto q = Make(Plain(4), 2);
  at::Tensor z = at::randn({1, 5, 2}, at::kDouble).requires_grad_();
  const auto loss = [&] {
    return q->Quantize(z, QuantizeContext()).vectors.pow(3).sum();
  };
  at::Tensor value = loss();
  value.backward();
  const at::Tensor vectors = q->Quantize(z, QuantizeContext()).vectors;
  EXPECT_TRUE(at::allclose(z.grad(), 3 * vectors.detach().square()));
  const double start = value.item<double>();
  at::NoGradGuard no_grad;
  z += 1e-7;
  EXPECT_EQ(loss().item<double>(), start);
}

VqConfig Drawn(int64_t num_codes, double temperature) {
  VqConfig config = Plain(num_codes);
  config.mutable_codebook()->set_estimator(CodebookOptions::GUMBEL);
  config.mutable_codebook()->set_soft_temperature(temperature);
  return config;
}

TEST(VqTest, DrawsCodesByDistance) {
  at::manual_seed(7);
  const int64_t k = 5, d = 3, draws = 4000;
  auto q = Make(Drawn(k, 0.8), d);
  const at::Tensor e = Codebook(*q).detach();
  const at::Tensor z = at::randn({1, 1, d}, at::kDouble);
  const at::Tensor p =
      at::softmax(-(z.view({1, d}) - e).square().sum(1) / 0.8, 0);
  QuantizeContext context = Train(0);
  for (int64_t i = 0; i < draws; ++i) context.draw_keys.push_back(77 * i);
  const Quantized out = q->Quantize(z.expand({draws, 1, d}), context);
  EXPECT_TRUE(at::equal(out.vectors.detach(), q->Lookup(out.codes).detach()));
  for (int64_t j = 0; j < k; ++j) {
    const double expected = p[j].item<double>();
    EXPECT_NEAR(out.codes.eq(j).sum().item<double>() / draws, expected,
                4 * std::sqrt(expected * (1 - expected) / draws));
  }
  ASSERT_TRUE(out.assignment.has_value() && out.entropy.has_value());
  EXPECT_TRUE(at::allclose((*out.assignment)[0][0], p));
  EXPECT_NEAR((*out.entropy)[0][0].item<double>(),
              -(p * p.log()).sum().item<double>(), 1e-12);
  // Outside training the nearest one, and no distribution.
  const Quantized nearest = q->Quantize(z, QuantizeContext());
  EXPECT_EQ(nearest.codes.item<int64_t>(), p.argmax().item<int64_t>());
  EXPECT_FALSE(nearest.assignment.has_value() || nearest.entropy.has_value());
}

// Straight-through Gumbel-softmax, from the noise itself.
TEST(VqTest, DrawnCodesPassTheGradientOfTheMixture) {
  at::manual_seed(8);
  const int64_t k = 4, d = 2, m = 6;
  auto q = Make(Drawn(k, 0.5), d);
  const at::Tensor e = Codebook(*q).detach();
  const at::Tensor up = at::randn({m, d}, at::kDouble);
  const at::Tensor features = at::randn({2, m / 2, d}, at::kDouble);
  const at::Tensor rows = features.view({m, d});
  const at::Tensor logits =
      (2 * at::matmul(rows, e.t()) - e.square().sum(1)) / 0.5;
  for (const bool train : {true, false}) {
    QuantizeContext context = train ? Train(3) : QuantizeContext();
    at::Tensor z = features.clone().requires_grad_();
    const Quantized out = q->Quantize(z, context);
    (out.vectors.view({m, d}) * up).sum().backward();
    at::Tensor noisy = logits;
    if (train) {
      noisy = logits +
              GumbelNoise(features, k, "codebook/vq/draw", "codebook", context);
    }
    EXPECT_TRUE(at::equal(out.codes.view({m}), noisy.argmax(1)));
    const at::Tensor y = at::softmax(noisy, 1);
    const at::Tensor value = at::matmul(up, e.t());
    const at::Tensor to_logits = y * (value - (y * value).sum(1, true));
    EXPECT_TRUE(at::allclose(z.grad().view({m, d}),
                             at::matmul(to_logits, 2 * e / 0.5), 1e-9, 1e-12));
  }
  // The codes get none by the vectors.
  EXPECT_FALSE(Codebook(*q).grad().defined());
}

TEST(VqTest, TheSoftTemperatureFollowsItsSchedule) {
  at::manual_seed(9);
  VqConfig config = Plain(4);
  CodebookOptions& options = *config.mutable_codebook();
  options.set_entropy_loss(true);
  const at::Tensor z = at::randn({1, 6, 2}, at::kDouble);
  const auto entropy_at = [&](double temperature) {
    options.clear_soft_temperature_end();
    options.set_soft_temperature(temperature);
    const Quantized out = Make(config, 2)->Quantize(z, Train(0));
    for (const auto& [name, value] : out.metrics)
      EXPECT_NE(name, "soft_temperature");
    return Named(out.losses, "entropy").item<double>();
  };
  const double hot = entropy_at(2), warm = entropy_at(1.25),
               cold = entropy_at(0.5);
  EXPECT_GT(hot, warm);
  options.set_soft_temperature(2);
  options.set_soft_temperature_end(0.5);
  options.set_soft_temperature_steps(10);
  auto q = Make(config, 2);
  const std::vector<std::pair<int64_t, double>> expected = {
      {0, hot}, {5, warm}, {10, cold}, {99, cold}};
  for (const auto& [step, entropy] : expected) {
    const Quantized out = q->Quantize(z, Train(step));
    EXPECT_NEAR(Named(out.losses, "entropy").item<double>(), entropy, 1e-12);
  }
  EXPECT_NEAR(Named(q->Quantize(z, Train(5)).metrics, "soft_temperature")
                  .item<double>(),
              1.25, 1e-9);
}

TEST(VqTest, CosineCodesHaveLengthOne) {
  at::manual_seed(4);
  VqConfig config = Plain(6);
  config.mutable_codebook()->set_metric(CodebookOptions::COSINE);
  auto q = Make(config, 3);
  {
    at::NoGradGuard no_grad;
    Codebook(*q) *= 7;
  }
  const at::Tensor z = 3 * at::randn({2, 5, 3}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_TRUE(
      at::allclose(out.vectors.norm(2, -1), at::ones({2, 5}, at::kDouble)));
  EXPECT_TRUE(at::equal(out.vectors.detach(), q->Lookup(out.codes).detach()));
  const at::Tensor unit = Codebook(*q) / Codebook(*q).norm(2, -1, true);
  EXPECT_TRUE(at::equal(out.codes.view({10}),
                        at::matmul(z.view({10, 3}), unit.t()).argmax(1)));
}

TEST(VqTest, StartsAtClustersOfTheFirstBatch) {
  at::manual_seed(5);
  VqConfig config = Plain(3);
  config.mutable_codebook()->set_init(CodebookOptions::KMEANS);
  auto q = Make(config, 2);
  const at::Tensor centres =
      at::tensor({5.0, 0.0, 0.0, 5.0, -5.0, -5.0}, at::kDouble).view({3, 2});
  const at::Tensor z =
      (centres.repeat({8, 1}) + 0.01 * at::randn({24, 2}, at::kDouble))
          .view({2, 12, 2});
  q->Quantize(z, QuantizeContext());  // Assigning initialises nothing.
  EXPECT_GT(q->Quantize(z, QuantizeContext())
                .vectors.sub(z)
                .abs()
                .max()
                .item<double>(),
            1);
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_LT(out.vectors.sub(z).abs().max().item<double>(), 0.1);
}

TEST(VqTest, RevivesCodesThatNobodyUses) {
  at::manual_seed(6);
  VqConfig config = Plain(8);
  config.mutable_codebook()->set_revive_after(3);
  auto q = Make(config, 2);
  {
    at::NoGradGuard no_grad;
    Codebook(*q).narrow(0, 1, 7).add_(1000);
  }
  double revivals = 0;
  for (int64_t step = 0; step < 6; ++step) {
    const at::Tensor z = at::randn({2, 20, 2}, at::kDouble);
    const Quantized out = q->Quantize(z, Train(step));
    revivals = Named(out.metrics, "revivals").item<double>();
    if (step <= 2) {
      EXPECT_EQ(out.codes.max().item<int64_t>(), 0) << step;
      EXPECT_EQ(revivals, 0);
    }
    ASSERT_TRUE(q->AfterStep(Train(step)).ok());
  }
  EXPECT_EQ(revivals, 7);
  EXPECT_LT(Codebook(*q).abs().max().item<double>(), 10);
}

TEST(VqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateVq(VqConfig()).ok());
  using Change = void (*)(VqConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"num_codes", [](VqConfig& c) { c.set_num_codes(0); }},
      {"codebook.kmeans_iterations",
       [](VqConfig& c) { c.mutable_codebook()->set_kmeans_iterations(-1); }},
      {"codebook.kmeans_samples",
       [](VqConfig& c) { c.mutable_codebook()->set_kmeans_samples(-1); }},
      {"codebook.revive_after",
       [](VqConfig& c) { c.mutable_codebook()->set_revive_after(-1); }},
      {"codebook.reservoir",
       [](VqConfig& c) { c.mutable_codebook()->set_reservoir(0); }},
      {"codebook.usage_window",
       [](VqConfig& c) { c.mutable_codebook()->set_usage_window(0); }},
      {"codebook.soft_temperature",
       [](VqConfig& c) { c.mutable_codebook()->set_soft_temperature(0); }},
      {"codebook.soft_temperature_end",
       [](VqConfig& c) { c.mutable_codebook()->set_soft_temperature_end(0); }},
      {"codebook.soft_temperature_steps", [](VqConfig& c) {
         c.mutable_codebook()->set_soft_temperature_steps(-1);
       }}};
  for (const auto& [field, change] : bad) {
    VqConfig config;
    change(config);
    const absl::Status status = ValidateVq(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
}

}  // namespace
}  // namespace semvq
