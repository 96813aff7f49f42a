#include "quantizers/ibq/ibq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/nn/testing.h"
#include "core/quantize/testing.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

IbqConfig Config(int64_t num_codes) {
  IbqConfig config;
  config.set_num_codes(num_codes);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.mutable_codebook()->set_revive_after(0);
  return config;
}

// In float64, with codes as spread as the features.
std::shared_ptr<Quantizer> Make(const IbqConfig& config, int64_t dim) {
  auto q = MakeQuantizer(MakeIbq, config, dim);
  q->to(at::kDouble);
  c10::NoGradGuard no_grad;
  at::Tensor e = StateNamed(*q, "codebook");
  e.copy_(at::randn(e.sizes(), at::kDouble));
  return q;
}

TEST(IbqTest, ByHand) {
  auto q = Make(Config(2), 1);
  at::Tensor e = StateNamed(*q, "codebook");
  {
    c10::NoGradGuard no_grad;
    e.copy_(at::tensor({2.0, -1.0}).view({2, 1}));
  }
  at::Tensor z = at::full({1, 1, 1}, 0.5, at::kDouble).requires_grad_();
  const Quantized out = q->Quantize(z, TrainingContext(0));
  EXPECT_EQ(out.codes.item<int64_t>(), 0);
  EXPECT_EQ(out.vectors.item<double>(), 2);
  for (const char* name : {"quantization", "commitment", "codebook"})
    EXPECT_EQ(TensorNamed(out.losses, name).item<double>(), 2.25);
  // p = (s, 1 - s) with s = sigmoid(1.5); z_q = sum_k o_k e_k, so
  // d z_q / dz = s (1 - s) (2 - -1)^2, and by e the one-hot code's share plus
  // z (2 - -1) s (1 - s) in opposite directions.
  const double s = 1 / (1 + std::exp(-1.5)), slope = s * (1 - s);
  out.vectors.sum().backward();
  EXPECT_NEAR(z.grad().item<double>(), 9 * slope, 1e-12);
  EXPECT_NEAR(e.grad()[0].item<double>(), 1 + 0.5 * 3 * slope, 1e-12);
  EXPECT_NEAR(e.grad()[1].item<double>(), -0.5 * 3 * slope, 1e-12);
}

TEST(IbqTest, EveryCodeGetsAGradient) {
  at::manual_seed(1);
  auto q = Make(Config(40), 4);
  const Quantized out =
      q->Quantize(at::randn({1, 2, 4}, at::kDouble), TrainingContext(0));
  out.vectors.square().sum().backward();
  const at::Tensor gradient = StateNamed(*q, "codebook").grad();
  EXPECT_GT(gradient.abs().sum(1).min().item<double>(), 0);
  // The values are the codes' all the same.
  EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
}

// The quantization loss' gradient is that of the mixture with the rounding held
// constant.
TEST(IbqTest, EstimatedLossHasItsSurrogatesGradient) {
  at::manual_seed(2);
  const int64_t k = 5, d = 3, m = 4;
  auto q = Make(Config(k), d);
  at::Tensor e = StateNamed(*q, "codebook");
  at::Tensor z = at::randn({1, m, d}, at::kDouble).requires_grad_();
  const Quantized out = q->Quantize(z, TrainingContext(0));
  TensorNamed(out.losses, "quantization").backward();

  at::Tensor x = z.detach().view({m, d}).clone().requires_grad_();
  at::Tensor c = e.detach().clone().requires_grad_();
  const at::Tensor rounding =
      at::one_hot(out.codes.view({m}), k).to(at::kDouble) -
      at::softmax(at::matmul(x, c.t()), 1).detach();
  const auto surrogate = [&](const std::vector<at::Tensor>& in) {
    const at::Tensor o =
        at::softmax(at::matmul(in[0], in[1].t()), 1) + rounding;
    return (at::matmul(o, in[1]) - in[0]).square().mean();
  };
  const absl::Status checked = NumericGradientCheck(surrogate, {x, c});
  ASSERT_TRUE(checked.ok()) << checked;
  surrogate({x, c}).backward();
  EXPECT_TRUE(at::allclose(z.grad().view({m, d}), x.grad(), 1e-10, 1e-12));
  EXPECT_TRUE(at::allclose(e.grad(), c.grad(), 1e-10, 1e-12));
  EXPECT_EQ(q->EstimatedLosses(), std::vector<std::string>{"quantization"});
}

TEST(IbqTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(3);
  IbqConfig config = Config(5);
  CodebookOptions& codebook = *config.mutable_codebook();
  codebook.set_entropy_loss(true);
  codebook.set_diversity_loss(true);
  codebook.set_orthogonality_loss(true);
  codebook.set_soft_temperature(0.5);
  auto q = Make(config, 3);
  const at::Tensor z = at::randn({2, 3, 3}, at::kDouble);
  const absl::Status checked = CheckLossGradients(*q, z, TrainingContext(0));
  EXPECT_TRUE(checked.ok()) << checked;
  // Entropies are those of the inner products.
  const at::Tensor p = at::softmax(
      at::matmul(z.view({6, 3}), StateNamed(*q, "codebook").t()) / 0.5, 1);
  const NamedTensors losses = q->Quantize(z, TrainingContext(0)).losses;
  EXPECT_NEAR(TensorNamed(losses, "entropy").item<double>(),
              (-(p * p.log()).sum(1)).mean().item<double>(), 1e-12);
  const at::Tensor mean = p.mean(0);
  EXPECT_NEAR(TensorNamed(losses, "diversity").item<double>(),
              (mean * mean.log()).sum().item<double>(), 1e-12);
}

TEST(IbqTest, EntropyAndDiversityAreLossesUnlessSwitchedOff) {
  at::manual_seed(7);
  const at::Tensor z = at::randn({1, 6, 3}, at::kDouble);
  const auto losses = [&](const IbqConfig& config) {
    std::vector<std::string> names;
    for (const auto& [name, loss] :
         Make(config, 3)->Quantize(z, TrainingContext(0)).losses)
      names.push_back(name);
    return names;
  };
  const std::vector<std::string> own = {"quantization", "commitment",
                                        "codebook"};
  IbqConfig config = Config(5);
  std::vector<std::string> all = own;
  all.insert(all.end(), {"entropy", "diversity"});
  EXPECT_EQ(losses(config), all);
  config.mutable_codebook()->set_entropy_loss(false);
  config.mutable_codebook()->set_diversity_loss(false);
  EXPECT_EQ(losses(config), own);
}

TEST(IbqTest, ManyLogitsAreTakenInParts) {
  at::manual_seed(4);
  auto q = MakeQuantizer(MakeIbq, Config(8192), 3);
  const at::Tensor z = at::randn({1, 2100, 3});
  const at::Tensor codes =
      q->Quantize(z, QuantizeContext()).codes.view({2100, 1});
  const at::Tensor logits =
      at::matmul(z.view({2100, 3}), StateNamed(*q, "codebook").detach().t());
  const at::Tensor short_of =
      logits.amax(1) - logits.gather(1, codes).view({-1});
  EXPECT_LT(short_of.max().item<float>(), 1e-9);
  EXPECT_GT(codes.max().item<int64_t>(), 4000);
}

// From directions of one length, so that a feature's own centre wins; random
// codes are mostly on the wrong side of features that have a mean.
TEST(IbqTest, StartsFromDirectionsAndRevives) {
  at::manual_seed(6);
  const at::Tensor z = at::randn({4, 32, 3}) + 2;
  const auto usage = [&](Quantizer& q) {
    return TensorNamed(q.Quantize(z, TrainingContext(0)).metrics, "batch_usage")
        .item<double>();
  };
  auto random = MakeQuantizer(MakeIbq, Config(16), 3);
  EXPECT_LT(usage(*random), 0.4);
  IbqConfig config;
  config.set_num_codes(16);
  config.mutable_codebook()->set_revive_after(2);
  auto q = MakeQuantizer(MakeIbq, config, 3);
  EXPECT_GT(usage(*q), 0.5);
  const at::Tensor lengths = StateNamed(*q, "codebook").detach().norm(2, 1);
  EXPECT_TRUE(at::allclose(lengths, lengths.mean().expand({16}), 1e-5));

  // One code's half of the space is everything.
  {
    c10::NoGradGuard no_grad;
    StateNamed(*q, "codebook").select(0, 3).mul_(100);
  }
  EXPECT_LE(usage(*q), 1.0 / 16);
  for (int64_t step = 0; step < 3; ++step) {
    q->Quantize(z, TrainingContext(step));
    c10::NoGradGuard no_grad;
    ASSERT_TRUE(q->AfterStep(TrainingContext(step + 1)).ok());
  }
  EXPECT_EQ(StateNamed(*q, "history.last_revived").gt(0).sum().item<int64_t>(),
            15);
  // They are features' directions, as long as the one that was used: at the
  // mean length of all, which those that starved kept small, they would starve
  // on.
  const at::Tensor revived = StateNamed(*q, "codebook").detach().norm(2, 1);
  EXPECT_TRUE(at::allclose(revived, revived[3].expand({16}), 1e-5));
  EXPECT_GT(usage(*q), 0.5);
}

TEST(IbqTest, HugeFeaturesAndCodes) {
  at::manual_seed(5);
  auto q = MakeQuantizer(MakeIbq, Config(6), 4);
  {
    c10::NoGradGuard no_grad;
    StateNamed(*q, "codebook").mul_(1e30);
  }
  const Quantized out =
      q->Quantize(at::randn({2, 5, 4}) * 1e30, TrainingContext(0));
  EXPECT_TRUE(out.vectors.isfinite().all().item<bool>());
  EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
  EXPECT_FALSE(TensorNamed(out.losses, "commitment").isfinite().item<bool>());
}

TEST(IbqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateIbq(IbqConfig()).ok());
  IbqConfig bad;
  bad.set_num_codes(-1);
  bad.mutable_codebook()->set_metric(CodebookOptions::COSINE);
  bad.mutable_codebook()->set_estimator(CodebookOptions::ROTATION);
  bad.mutable_codebook()->set_reservoir(0);
  const std::string message(ValidateIbq(bad).message());
  for (const char* field : {"num_codes: got -1", "\ncodebook.metric",
                            "\ncodebook.estimator", "\ncodebook.reservoir"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << message;
  }
}

}  // namespace
}  // namespace semvq
