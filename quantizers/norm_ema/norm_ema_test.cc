#include "quantizers/norm_ema/norm_ema.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/quantize/testing.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

NormEmaConfig Plain(int64_t num_codes) {
  NormEmaConfig config;
  config.set_num_codes(num_codes);
  config.set_decay_warmup(false);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.mutable_codebook()->set_revive_after(0);
  config.mutable_codebook()->set_reservoir(16);
  return config;
}

std::shared_ptr<Quantizer> Make(const NormEmaConfig& config, int64_t dim) {
  auto q = MakeQuantizer(MakeNormEma, config, dim);
  q->to(at::kDouble);
  return q;
}

at::Tensor Unit(const at::Tensor& x) { return x / x.norm(2, -1, true); }

// The formulas of METHOD, code by code, over the micro-steps of each step.
TEST(NormEmaTest, FollowsTheFormulas) {
  at::manual_seed(1);
  const int64_t k = 9, d = 3;
  NormEmaConfig config = Plain(k);
  config.set_decay(0.7);
  auto q = Make(config, d);
  at::Tensor e = StateNamed(*q, "codebook").clone();
  EXPECT_TRUE(at::allclose(e.norm(2, 1), at::ones({k}, at::kDouble)));
  bool unused = false;
  for (int64_t step = 0; step < 20; ++step) {
    std::vector<int64_t> counts(k, 0);
    std::vector<at::Tensor> sums(k, at::zeros({d}, at::kDouble));
    for (int micro = 0; micro < 2; ++micro) {
      const at::Tensor z = at::randn({1, 6, d}, at::kDouble) * 5;
      const Quantized out = q->Quantize(z, TrainingContext(step));
      double squared = 0;
      for (int64_t i = 0; i < 6; ++i) {
        const at::Tensor row = Unit(z[0][i]);
        const int64_t j = at::mv(e, row).argmax().item<int64_t>();
        ASSERT_EQ(out.codes[0][i][0].item<int64_t>(), j);
        ASSERT_TRUE(at::equal(out.vectors[0][i], e[j]));
        squared += (row - e[j]).square().sum().item<double>();
        counts[j] += 1;
        sums[j] = sums[j] + row;
      }
      EXPECT_NEAR(TensorNamed(out.losses, "commitment").item<double>(),
                  squared / (6 * d), 1e-12);
    }
    ASSERT_TRUE(q->AfterStep(TrainingContext(step)).ok());
    for (int64_t j = 0; j < k; ++j) {
      unused = unused || counts[j] == 0;
      if (counts[j] > 0) {
        const at::Tensor mean = sums[j] / static_cast<double>(counts[j]);
        e[j] = Unit(0.7 * e[j] + (1 - 0.7) * Unit(mean));
      }
    }
    ASSERT_TRUE(at::allclose(StateNamed(*q, "codebook"), e, 1e-12, 1e-12));
    e = StateNamed(*q, "codebook").clone();
  }
  EXPECT_TRUE(unused);
}

TEST(NormEmaTest, ByHand) {
  NormEmaConfig config = Plain(2);
  config.set_decay(0.75);
  auto q = Make(config, 2);
  at::Tensor e = StateNamed(*q, "codebook");
  e.copy_(at::tensor({1.0, 0.0, 0.0, -1.0}, at::kDouble).view({2, 2}));
  // Both features point at 45 degrees; the length of neither counts.
  const at::Tensor z =
      at::tensor({3.0, 3.0, 0.01, 0.01}, at::kDouble).view({1, 2, 2});
  const Quantized out = q->Quantize(z, TrainingContext(0));
  EXPECT_TRUE(at::equal(out.codes, at::zeros({1, 2, 1}, at::kLong)));
  // |(1, 1) / sqrt 2 - (1, 0)|^2 = 2 - sqrt 2, over two dimensions.
  EXPECT_NEAR(TensorNamed(out.losses, "commitment").item<double>(),
              1 - std::sqrt(0.5), 1e-12);
  ASSERT_TRUE(q->AfterStep(TrainingContext(0)).ok());
  const double x = 0.75 + 0.25 * std::sqrt(0.5), y = 0.25 * std::sqrt(0.5);
  const double length = std::sqrt(x * x + y * y);
  EXPECT_NEAR(e[0][0].item<double>(), x / length, 1e-12);
  EXPECT_NEAR(e[0][1].item<double>(), y / length, 1e-12);
  // The other one had no feature.
  EXPECT_EQ(e[1][0].item<double>(), 0);
  EXPECT_EQ(e[1][1].item<double>(), -1);
}

// One code in the plane, whose features turn by a right angle: it decays by
// 1 / 10, 2 / 11, ... and never by more than `decay`.
TEST(NormEmaTest, TheDecayWarmsUp) {
  const auto unit = [](double x, double y) {
    return at::tensor({x, y}, at::kDouble) / std::hypot(x, y);
  };
  for (const bool warm : {true, false}) {
    NormEmaConfig config = Plain(1);
    config.mutable_codebook()->set_init(CodebookOptions::DATA);
    config.mutable_codebook()->set_revive_after(3);
    config.set_decay(0.3);
    config.set_decay_warmup(warm);
    auto q = Make(config, 2);
    at::Tensor e = unit(1, 0);
    for (int64_t step = 0; step < 5; ++step) {
      const at::Tensor z = step == 0 ? unit(1, 0) : unit(0, 1);
      q->Quantize(z.view({1, 1, 2}), TrainingContext(step));
      ASSERT_TRUE(q->AfterStep(TrainingContext(step)).ok());
      const double n = static_cast<double>(step);
      const double decay = warm ? std::min(0.3, (1 + n) / (10 + n)) : 0.3;
      e = Unit(decay * e + (1 - decay) * z);
      ASSERT_TRUE(at::allclose(StateNamed(*q, "codebook")[0], e, 1e-9, 1e-9))
          << step;
    }
    // A code that is revived starts again: from a feature, here the last one.
    const at::Tensor steps = StateNamed(*q, "steps");
    const double before = steps[0].item<double>();
    for (int64_t step = 5; step < 9; ++step) {
      QuantizeContext none = TrainingContext(step);
      none.valid = at::zeros({1, 1}, at::kBool);
      q->Quantize(unit(-1, 0).view({1, 1, 2}), none);
      ASSERT_TRUE(q->AfterStep(TrainingContext(step)).ok());
    }
    EXPECT_EQ(steps[0].item<double>(), warm ? 0 : before);
  }
}

TEST(NormEmaTest, FeaturesThatCancelMoveNothing) {
  auto q = Make(Plain(1), 2);
  at::Tensor e = StateNamed(*q, "codebook");
  const at::Tensor before = e.clone();
  const at::Tensor z =
      at::tensor({1.0, 2.0, -1.0, -2.0}, at::kDouble).view({1, 2, 2});
  q->Quantize(z, TrainingContext(0));
  ASSERT_TRUE(q->AfterStep(TrainingContext(0)).ok());
  // It was drawn in float32, so its length is corrected.
  EXPECT_TRUE(at::allclose(e, before, 0, 1e-6));
}

TEST(NormEmaTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  for (auto estimator :
       {CodebookOptions::STRAIGHT_THROUGH, CodebookOptions::ROTATION}) {
    NormEmaConfig config = Plain(5);
    config.mutable_codebook()->set_estimator(estimator);
    config.mutable_codebook()->set_entropy_loss(true);
    config.mutable_codebook()->set_diversity_loss(true);
    config.mutable_codebook()->set_soft_temperature(0.5);
    auto q = Make(config, 3);
    const absl::Status checked = CheckLossGradients(
        *q, at::randn({2, 3, 3}, at::kDouble), TrainingContext(0));
    EXPECT_TRUE(checked.ok()) << checked;
  }
}

TEST(NormEmaTest, StartsFromDirectionsAndRevives) {
  at::manual_seed(3);
  for (auto init : {CodebookOptions::KMEANS, CodebookOptions::DATA}) {
    NormEmaConfig config = Plain(16);
    config.mutable_codebook()->set_init(init);
    config.mutable_codebook()->set_revive_after(2);
    auto q = Make(config, 4);
    double revivals = 0;
    for (int64_t step = 0; step < 12; ++step) {
      // From the fourth step on, features come from one corner.
      at::Tensor z = at::randn({4, 16, 4}, at::kDouble);
      if (step > 3) z = z * 0.05 + 1;
      const Quantized out = q->Quantize(z, TrainingContext(step));
      revivals = TensorNamed(out.metrics, "revivals").item<double>();
      if (step == 0) {
        EXPECT_EQ(TensorNamed(out.metrics, "batch_usage").item<float>(), 1);
      }
      ASSERT_TRUE(q->AfterStep(TrainingContext(step)).ok());
      EXPECT_TRUE(at::allclose(StateNamed(*q, "codebook").norm(2, 1),
                               at::ones({16}, at::kDouble)));
    }
    EXPECT_GT(revivals, 0);
  }
}

TEST(NormEmaTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateNormEma(NormEmaConfig()).ok());
  NormEmaConfig bad;
  bad.set_num_codes(0);
  bad.set_decay(1);
  bad.mutable_codebook()->set_metric(CodebookOptions::COSINE);
  bad.mutable_codebook()->set_orthogonality_loss(true);
  const std::string message(ValidateNormEma(bad).message());
  for (const char* field : {"num_codes: got 0", "\ndecay: got 1",
                            "\ncodebook.metric", "\ncodebook.orthogonality"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << message;
  }
}

}  // namespace
}  // namespace semvq
