#include "quantizers/simvq/simvq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "core/quantize/testing.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

SimVqConfig Config(int64_t num_codes) {
  SimVqConfig config;
  config.set_num_codes(num_codes);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  return config;
}

std::shared_ptr<Quantizer> Make(const SimVqConfig& config, int64_t dim) {
  auto q = MakeQuantizer(MakeSimVq, config, dim);
  q->to(at::kDouble);
  return q;
}

TEST(SimVqTest, FollowsTheFormulas) {
  at::manual_seed(1);
  const int64_t k = 7, d = 3;
  auto q = Make(Config(k), d);
  const at::Tensor c = StateNamed(*q, "frozen");
  const at::Tensor w = StateNamed(*q, "transform");
  EXPECT_FALSE(c.requires_grad());
  const at::Tensor e = at::einsum("kc,dc->kd", {c, w.detach()});
  at::Tensor z = at::randn({2, 4, d}, at::kDouble).requires_grad_();
  const Quantized out = q->Quantize(z, TrainingContext(0));
  at::Tensor to_features = at::zeros({8, d}, at::kDouble);
  at::Tensor to_map = at::zeros({d, d}, at::kDouble);
  double squared = 0;
  for (int64_t i = 0; i < 8; ++i) {
    const at::Tensor row = z.detach().view({8, d})[i];
    const int64_t j = (e - row).square().sum(1).argmin().item<int64_t>();
    ASSERT_EQ(out.codes.view({8})[i].item<int64_t>(), j);
    ASSERT_TRUE(at::allclose(out.vectors.view({8, d})[i], e[j]));
    const at::Tensor difference = e[j] - row;
    squared += difference.square().sum().item<double>();
    to_features[i] = -2 * difference / (8 * d);
    to_map += at::outer(2 * difference / (8 * d), c[j]);
  }
  ASSERT_EQ(out.losses.size(), 2u);
  for (const char* name : {"codebook", "commitment"}) {
    EXPECT_NEAR(TensorNamed(out.losses, name).item<double>(), squared / (8 * d),
                1e-12);
  }
  TensorNamed(out.losses, "codebook").backward();
  EXPECT_FALSE(z.grad().defined());
  EXPECT_TRUE(at::allclose(w.grad(), to_map, 1e-10, 1e-12));
  w.mutable_grad() = at::Tensor();
  TensorNamed(out.losses, "commitment").backward();
  EXPECT_FALSE(w.grad().defined());
  EXPECT_TRUE(at::allclose(z.grad().view({8, d}), to_features, 1e-10, 1e-12));
}

TEST(SimVqTest, ByHand) {
  auto q = Make(Config(2), 1);
  StateNamed(*q, "frozen").copy_(at::tensor({1.0, -2.0}).view({2, 1}));
  {
    c10::NoGradGuard no_grad;
    StateNamed(*q, "transform").fill_(3.0);
  }
  // Codes 3 and -6; 1 is nearer to 3.
  const Quantized out =
      q->Quantize(at::ones({1, 1, 1}, at::kDouble), TrainingContext(0));
  EXPECT_EQ(out.codes.item<int64_t>(), 0);
  EXPECT_EQ(out.vectors.item<double>(), 3);
  EXPECT_EQ(TensorNamed(out.losses, "codebook").item<double>(), 4);
  EXPECT_EQ(q->Lookup(at::ones({1, 1}, at::kLong)).item<double>(), -6);
}

// One feature moves every code: what keeps a codebook from collapsing.
TEST(SimVqTest, AllCodesMoveTogether) {
  at::manual_seed(2);
  auto q = Make(Config(50), 4);
  at::Tensor w = StateNamed(*q, "transform");
  const at::Tensor all = at::arange(50).view({50, 1});
  const at::Tensor frozen = StateNamed(*q, "frozen").clone();
  const at::Tensor before = q->Lookup(all).detach().clone();
  const Quantized out =
      q->Quantize(at::randn({1, 1, 4}, at::kDouble), TrainingContext(0));
  TensorNamed(out.losses, "codebook").backward();
  {
    c10::NoGradGuard no_grad;
    w.sub_(w.grad());
  }
  ASSERT_TRUE(q->AfterStep(TrainingContext(0)).ok());
  EXPECT_TRUE(at::equal(StateNamed(*q, "frozen"), frozen));
  EXPECT_GT((q->Lookup(all) - before).abs().sum(1).min().item<double>(), 0);
}

TEST(SimVqTest, StartsFromTheFirstBatch) {
  at::manual_seed(4);
  const at::Tensor z = at::randn({4, 16, 3}, at::kDouble) + 5;
  auto random = Make(Config(16), 3);
  EXPECT_LT(TensorNamed(random->Quantize(z, TrainingContext(0)).metrics,
                        "batch_usage")
                .item<double>(),
            0.3);
  SimVqConfig config = Config(16);
  config.mutable_codebook()->set_init(CodebookOptions::DATA);
  auto data = Make(config, 3);
  const Quantized out = data->Quantize(z, TrainingContext(0));
  EXPECT_EQ(TensorNamed(out.metrics, "batch_usage").item<double>(), 1);
  // Every code is a feature.
  EXPECT_EQ((StateNamed(*data, "frozen").unsqueeze(1) - z.view({1, 64, 3}))
                .abs()
                .sum(2)
                .amin(1)
                .max()
                .item<double>(),
            0);
  EXPECT_TRUE(at::equal(out.vectors, data->Lookup(out.codes)));
}

TEST(SimVqTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(3);
  for (auto metric : {CodebookOptions::L2, CodebookOptions::COSINE}) {
    SimVqConfig config = Config(5);
    CodebookOptions& codebook = *config.mutable_codebook();
    codebook.set_metric(metric);
    codebook.set_entropy_loss(true);
    codebook.set_diversity_loss(true);
    codebook.set_orthogonality_loss(true);
    codebook.set_soft_temperature(0.5);
    auto q = Make(config, 3);
    const Quantized out =
        q->Quantize(at::randn({1, 2, 3}, at::kDouble), TrainingContext(0));
    EXPECT_EQ(out.losses.size(), 5u);
    const absl::Status checked = CheckLossGradients(
        *q, at::randn({2, 3, 3}, at::kDouble), TrainingContext(0));
    EXPECT_TRUE(checked.ok()) << checked;
  }
}

TEST(SimVqTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateSimVq(SimVqConfig()).ok());
  SimVqConfig bad;
  bad.set_num_codes(int64_t{1} << 31);
  bad.mutable_codebook()->set_revive_after(5);
  const std::string message(ValidateSimVq(bad).message());
  for (const char* field :
       {"num_codes: got 2147483648", "\ncodebook.revive_after"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << message;
  }
}

}  // namespace
}  // namespace semvq
