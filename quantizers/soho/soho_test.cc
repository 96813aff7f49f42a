#include "quantizers/soho/soho.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/quantize/testing.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

SohoConfig Plain(int64_t num_codes) {
  SohoConfig config;
  config.set_num_codes(num_codes);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.mutable_codebook()->set_revive_after(0);
  config.mutable_codebook()->set_reservoir(16);
  return config;
}

std::shared_ptr<Quantizer> Make(const SohoConfig& config, int64_t dim) {
  auto q = MakeQuantizer(MakeSoho, config, dim);
  q->to(at::kDouble);
  return q;
}

TEST(SohoTest, ByHand) {
  SohoConfig config = Plain(2);
  config.set_epsilon(1e-12);
  auto q = Make(config, 1);
  at::Tensor e = StateNamed(*q, "codebook");
  e.copy_(at::tensor({0.0, 10.0}).view({2, 1}));
  StateNamed(*q, "ema_sum").copy_(e);  // Counts are 1.
  // 1 and 3 choose code 0: N = 0.4 + 0.6 * 2 = 1.6, m = 0.6 * 4 = 2.4. Code 1
  // has no feature: N = 0.4, m = 4.
  const at::Tensor z = at::tensor({1.0, 3.0}, at::kDouble).view({1, 2, 1});
  const Quantized out = q->Quantize(z, TrainingContext(0));
  EXPECT_TRUE(at::equal(out.codes, at::zeros({1, 2, 1}, at::kLong)));
  EXPECT_NEAR(out.vectors[0][0][0].item<double>(), 1.5, 1e-9);
  EXPECT_NEAR(out.vectors[0][1][0].item<double>(), 1.5, 1e-9);
  EXPECT_TRUE(out.losses.empty());
  // The dictionary itself is updated by the step.
  EXPECT_EQ(e[0].item<double>(), 0);
  ASSERT_TRUE(q->AfterStep(TrainingContext(0)).ok());
  EXPECT_TRUE(at::equal(q->Lookup(out.codes), out.vectors));
  EXPECT_NEAR(e[1].item<double>(), 10, 1e-9);
}

// Over many steps: METHOD's formulas, and the micro-steps so far.
TEST(SohoTest, LooksUpAfterTheUpdate) {
  at::manual_seed(1);
  const int64_t k = 6, d = 3;
  auto q = Make(Plain(k), d);
  at::Tensor e = StateNamed(*q, "codebook").clone();
  at::Tensor n = at::ones({k}, at::kDouble), m = e.clone();
  for (int64_t step = 0; step < 20; ++step) {
    at::Tensor counts = at::zeros({k}, at::kDouble);
    at::Tensor sums = at::zeros({k, d}, at::kDouble);
    at::Tensor next;
    for (int micro = 0; micro < 2; ++micro) {
      const at::Tensor z = at::randn({2, 4, d}, at::kDouble) + 0.1 * step;
      const Quantized out = q->Quantize(z, TrainingContext(step));
      for (int64_t i = 0; i < 8; ++i) {
        const at::Tensor row = z.view({8, d})[i];
        const int64_t j = (e - row).square().sum(1).argmin().item<int64_t>();
        ASSERT_EQ(out.codes.view({8})[i].item<int64_t>(), j);
        counts[j] += 1;
        sums[j] += row;
      }
      const at::Tensor count = 0.4 * n + 0.6 * counts;
      const at::Tensor total = count.sum();
      next = (0.4 * m + 0.6 * sums) /
             ((count + 1e-5) / (total + k * 1e-5) * total).unsqueeze(1);
      ASSERT_TRUE(at::allclose(out.vectors.view({8, d}),
                               next.index_select(0, out.codes.view({8})), 1e-10,
                               1e-12));
    }
    ASSERT_TRUE(q->AfterStep(TrainingContext(step)).ok());
    n = 0.4 * n + 0.6 * counts;
    m = 0.4 * m + 0.6 * sums;
    e = next;
    ASSERT_TRUE(at::allclose(StateNamed(*q, "codebook"), e, 1e-10, 1e-12));
  }
}

TEST(SohoTest, PassesTheGradientStraightThrough) {
  at::manual_seed(2);
  auto q = Make(Plain(5), 3);
  at::Tensor z = at::randn({2, 4, 3}, at::kDouble).requires_grad_();
  const at::Tensor up = at::randn({2, 4, 3}, at::kDouble);
  (q->Quantize(z, TrainingContext(0)).vectors * up).sum().backward();
  EXPECT_TRUE(at::equal(z.grad(), up));
}

TEST(SohoTest, AssigningAndFrozenCodesSeeTheDictionaryAsItIs) {
  at::manual_seed(3);
  auto q = Make(Plain(5), 3);
  EXPECT_FALSE(q->info().exact_lookup);
  EXPECT_FALSE(SohoContract("codebook", Plain(5), {}).codes.exact_lookup);
  const at::Tensor z = at::randn({2, 4, 3}, at::kDouble);
  q->Quantize(z, TrainingContext(0));
  const Quantized assigned = q->Quantize(z, QuantizeContext());
  EXPECT_TRUE(at::equal(assigned.vectors, q->Lookup(assigned.codes)));
  QuantizeContext frozen = TrainingContext(0);
  frozen.frozen = true;
  EXPECT_TRUE(at::equal(q->Quantize(z, frozen).vectors, assigned.vectors));
}

TEST(SohoTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(4);
  SohoConfig config = Plain(5);
  config.mutable_codebook()->set_entropy_loss(true);
  config.mutable_codebook()->set_diversity_loss(true);
  config.mutable_codebook()->set_soft_temperature(1);
  auto q = Make(config, 3);
  const absl::Status checked = CheckLossGradients(
      *q, at::randn({2, 3, 3}, at::kDouble), TrainingContext(0));
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(SohoTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateSoho(SohoConfig()).ok());
  SohoConfig bad;
  bad.set_num_codes(0);
  bad.set_decay(-0.1);
  bad.set_epsilon(NAN);
  bad.set_revive_threshold(1);
  const std::string message(ValidateSoho(bad).message());
  for (const char* field : {"num_codes: got 0", "\ndecay: got -0.1",
                            "\nepsilon: got nan", "\nrevive_threshold"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << message;
  }
}

}  // namespace
}  // namespace semvq
