#include "quantizers/gumbel/gumbel.h"

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

constexpr int64_t kCodes = 5, kDim = 3;

GumbelConfig Config(bool straight_through) {
  GumbelConfig config;
  config.set_num_codes(kCodes);
  config.set_straight_through(straight_through);
  config.set_temperature_end(0.5);
  config.set_temperature_steps(10);
  config.set_kl_weight(2.0);
  config.set_kl_weight_steps(0);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  return config;
}

std::shared_ptr<Quantizer> Make(const GumbelConfig& config) {
  Contract host;
  host.provides = {{kQuantized, kDim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.seed = 5;
  context.book = &book;
  at::manual_seed(8);
  auto made = MakeGumbel(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

QuantizeContext Train(int64_t step, std::vector<uint64_t> keys = {}) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.step = step;
  context.draw_keys = std::move(keys);
  return context;
}

at::Tensor Parameter(Quantizer& quantizer, const std::string& name) {
  return quantizer.named_parameters()[name].detach();
}

at::Tensor LogQ(Quantizer& quantizer, const at::Tensor& z) {
  return at::log_softmax(
      at::matmul(z, Parameter(quantizer, "logits.weight").t()) +
          Parameter(quantizer, "logits.bias"),
      -1);
}

double Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value.item<double>();
  }
  ADD_FAILURE() << "nothing is named " << name;
  return NAN;
}

TEST(GumbelTest, CodesAreDrawnFromTheSoftmaxOfTheLogits) {
  auto q = Make(Config(true));
  const at::Tensor z = 20 * at::randn({1, 1, kDim}, at::kDouble);
  const at::Tensor expected = LogQ(*q, z).exp().view({kCodes});
  const int64_t draws = 4000;
  std::vector<uint64_t> keys(draws);
  for (int64_t i = 0; i < draws; ++i) keys[i] = 77 * i;
  const at::Tensor codes =
      q->Quantize(z.expand({draws, 1, kDim}), Train(0, keys)).codes;
  for (int64_t k = 0; k < kCodes; ++k) {
    const double p = expected[k].item<double>();
    const double share = codes.eq(k).sum().item<double>() / draws;
    EXPECT_NEAR(share, p, 4 * std::sqrt(p * (1 - p) / draws) + 1e-9);
  }
}

TEST(GumbelTest, ReportsItsDistribution) {
  auto q = Make(Config(true));
  const at::Tensor z = 10 * at::randn({2, 4, kDim}, at::kDouble);
  QuantizeContext context = Train(0);
  context.valid = at::ones({2, 4}, at::kBool);
  context.valid[1][3] = false;
  const Quantized out = q->Quantize(z, context);
  ASSERT_TRUE(out.assignment.has_value() && out.entropy.has_value());
  const at::Tensor log_q = LogQ(*q, z);
  double kl = 0;
  for (int64_t i = 0; i < 7; ++i) {
    const at::Tensor row = log_q.view({8, kCodes})[i];
    EXPECT_TRUE(at::allclose(out.assignment->view({8, kCodes})[i], row.exp()));
    const double entropy = -(row.exp() * row).sum().item<double>();
    EXPECT_NEAR(out.entropy->view({8})[i].item<double>(), entropy, 1e-10);
    // KL(q || uniform), written out.
    kl += (row.exp() * (row + std::log(kCodes))).sum().item<double>() / 7;
  }
  EXPECT_EQ(out.entropy->view({8})[7].item<double>(), 0);
  EXPECT_EQ(out.assignment->view({8, kCodes})[7].sum().item<double>(), 0);
  EXPECT_NEAR(Named(out.metrics, "kl_nats"), kl, 1e-10);
  EXPECT_NEAR(Named(out.losses, "kl"), 2 * kl, 1e-10);
  // Outside training q is all on the most probable code, and nothing is said.
  const Quantized assigned = q->Quantize(z, QuantizeContext());
  EXPECT_TRUE(at::equal(assigned.codes.squeeze(-1), log_q.argmax(-1)));
  EXPECT_FALSE(assigned.assignment.has_value() || assigned.entropy.has_value());
}

TEST(GumbelTest, VectorsAndGradientsAreThoseOfTheEstimator) {
  for (const bool straight_through : {true, false}) {
    auto q = Make(Config(straight_through));
    at::Tensor z = (10 * at::randn({1, 6, kDim}, at::kDouble)).requires_grad_();
    const Quantized out = q->Quantize(z, Train(5));
    EXPECT_EQ(at::equal(out.vectors.detach(), q->Lookup(out.codes).detach()),
              straight_through);
    EXPECT_EQ(q->info().exact_lookup, straight_through);

    // The relaxed vectors from outside: the noise of a step is fixed.
    auto relaxed = Make(Config(false));
    at::Tensor same = z.detach().clone().requires_grad_();
    const at::Tensor mixture = relaxed->Quantize(same, Train(5)).vectors;
    const at::Tensor weights = at::randn({1, 6, kDim}, at::kDouble);
    (mixture * weights).sum().backward();
    (out.vectors * weights).sum().backward();
    EXPECT_TRUE(at::allclose(z.grad(), same.grad(), 1e-9, 1e-12));
  }
}

TEST(GumbelTest, RelaxedVectorsHaveTheirNumericGradient) {
  auto q = Make(Config(false));
  at::Tensor z = at::randn({1, 3, kDim}, at::kDouble).requires_grad_();
  std::vector<at::Tensor> inputs = {z};
  for (const at::Tensor& p : q->parameters()) inputs.push_back(p);
  const absl::Status status = NumericGradientCheck(
      [&q](const std::vector<at::Tensor>& x) {
        const Quantized out = q->Quantize(x[0], Train(3));
        return at::cat({out.vectors.flatten(), out.losses[0].second.view({1}),
                        out.entropy->flatten(), out.assignment->flatten()});
      },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(GumbelTest, RelaxedVectorsBecomeCodesAsItCools) {
  double last = 1e9;
  for (const double temperature : {1.0, 0.1, 0.001}) {
    GumbelConfig config = Config(false);
    config.set_temperature_start(temperature);
    config.set_temperature_end(temperature);
    auto q = Make(config);
    at::manual_seed(9);
    const at::Tensor z = at::randn({1, 30, kDim}, at::kDouble);
    const Quantized out = q->Quantize(z, Train(0));
    const double off =
        (out.vectors - q->Lookup(out.codes)).square().sum().item<double>();
    EXPECT_LT(off, last);
    last = off;
  }
  EXPECT_LT(last, 1e-2);
}

TEST(GumbelTest, NoiseBelongsToTheImageNotToItsRow) {
  auto q = Make(Config(true));
  const at::Tensor z = at::zeros({3, 40, kDim}, at::kDouble);
  const at::Tensor a = q->Quantize(z, Train(0, {1, 2, 3})).codes;
  const at::Tensor b = q->Quantize(z, Train(9, {3, 2, 4})).codes;
  EXPECT_TRUE(at::equal(a[2], b[0]));
  EXPECT_TRUE(at::equal(a[1], b[1]));
  EXPECT_FALSE(at::equal(a[0], b[2]));
  // Without keys, by step and row.
  EXPECT_TRUE(at::equal(q->Quantize(z, Train(1)).codes,
                        q->Quantize(z, Train(1)).codes));
  EXPECT_FALSE(at::equal(q->Quantize(z, Train(1)).codes,
                         q->Quantize(z, Train(2)).codes));
  EXPECT_THROW(q->Quantize(z, Train(0, {1, 2})), c10::Error);
}

TEST(GumbelTest, SchedulesAreHalfACosine) {
  auto q = Make(Config(true));
  const at::Tensor z = at::randn({1, 2, kDim}, at::kDouble);
  EXPECT_NEAR(Named(q->Quantize(z, Train(5)).metrics, "temperature"), 0.75,
              1e-9);
}

// Codes that are not drawn while the weight grows do not come back.
TEST(GumbelTest, TheKlCountsFromTheFirstStepUnlessToldOtherwise) {
  GumbelConfig config;
  config.set_num_codes(kCodes);
  const at::Tensor z = at::randn({1, 2, kDim}, at::kDouble);
  const Quantized out = Make(config)->Quantize(z, Train(0));
  EXPECT_GT(Named(out.losses, "kl"), 0);
  EXPECT_NEAR(Named(out.losses, "kl"),
              6.6 / 192 * Named(out.metrics, "kl_nats"), 1e-9);
  config.set_kl_weight_start(0);
  EXPECT_EQ(Named(Make(config)->Quantize(z, Train(0)).losses, "kl"), 0);
}

// q starts as the posterior of equal Gaussians around the first batch's
// centres.
TEST(GumbelTest, StartsAsAMixtureOfGaussians) {
  at::manual_seed(10);
  for (const auto init : {CodebookOptions::KMEANS, CodebookOptions::DATA}) {
    GumbelConfig config = Config(true);
    config.mutable_codebook()->set_init(init);
    auto q = Make(config);
    const at::Tensor z = 3 * at::randn({4, 30, kDim}, at::kDouble);
    const at::Tensor rows = z.view({120, kDim});
    const Quantized out = q->Quantize(z, Train(0));
    const at::Tensor e = Parameter(*q, "codebook");
    const at::Tensor squared = (rows.unsqueeze(1) - e).square().sum(2);
    // The least distances are the most probable codes,
    const Quantized assigned = q->Quantize(z, QuantizeContext());
    EXPECT_TRUE(at::equal(assigned.codes.view({120}), squared.argmin(1)));
    // and ln q falls by half the squared distance over the variance.
    const at::Tensor log_q = LogQ(*q, rows);
    const at::Tensor slope = (log_q.select(1, 0) - log_q.select(1, 1)) /
                             (squared.select(1, 1) - squared.select(1, 0));
    const double spread = squared.amin(1).mean().item<double>();
    EXPECT_TRUE(at::allclose(slope, slope[0].expand({120}), 1e-6));
    if (init == CodebookOptions::KMEANS) {
      EXPECT_NEAR(slope[0].item<double>(), kDim / spread / 2, 1e-3);
    }
    EXPECT_TRUE(at::allclose(out.assignment->view({120, kCodes}), log_q.exp()));
  }
}

TEST(GumbelTest, EqualFeaturesStartFinite) {
  for (const double value : {0.0, 1.0, 1e30}) {
    GumbelConfig config = Config(true);
    config.mutable_codebook()->set_init(CodebookOptions::KMEANS);
    auto q = Make(config);
    q->to(at::kFloat);
    const Quantized out = q->Quantize(at::full({2, 8, kDim}, value), Train(0));
    EXPECT_TRUE(out.vectors.isfinite().all().item<bool>()) << value;
    for (const at::Tensor& p : q->parameters())
      EXPECT_TRUE(p.isfinite().all().item<bool>()) << value;
  }
}

TEST(GumbelTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateGumbel(GumbelConfig()).ok());
  using Change = void (*)(GumbelConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"num_codes", [](GumbelConfig& c) { c.set_num_codes(0); }},
      {"temperature_start",
       [](GumbelConfig& c) { c.set_temperature_start(0); }},
      {"temperature_end", [](GumbelConfig& c) { c.set_temperature_end(NAN); }},
      {"temperature_steps",
       [](GumbelConfig& c) { c.set_temperature_steps(-1); }},
      {"kl_weight_start", [](GumbelConfig& c) { c.set_kl_weight_start(-1); }},
      {"kl_weight", [](GumbelConfig& c) { c.set_kl_weight(INFINITY); }},
      {"kl_weight_steps", [](GumbelConfig& c) { c.set_kl_weight_steps(-1); }},
      {"codebook.usage_window",
       [](GumbelConfig& c) { c.mutable_codebook()->set_usage_window(0); }},
      {"codebook.metric",
       [](GumbelConfig& c) {
         c.mutable_codebook()->set_metric(CodebookOptions::COSINE);
       }},
      {"codebook.estimator",
       [](GumbelConfig& c) {
         c.mutable_codebook()->set_estimator(CodebookOptions::ROTATION);
       }},
      {"codebook.revive_after",
       [](GumbelConfig& c) { c.mutable_codebook()->set_revive_after(10); }}};
  for (const auto& [field, change] : bad) {
    GumbelConfig config;
    change(config);
    const absl::Status status = ValidateGumbel(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
}

}  // namespace
}  // namespace semvq
