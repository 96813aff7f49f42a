#include "quantizers/residual/residual.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"
#include "quantizers/make_quantizer.h"

namespace semvq {
namespace {

constexpr char kVq[] =
    "quantizer { [type.googleapis.com/semvq.VqConfig] { num_codes: 6 codebook "
    "{ init: RANDOM revive_after: 0 reservoir: 8 } } }";
constexpr char kVqEma[] =
    "quantizer { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 6 "
    "codebook { init: RANDOM revive_after: 0 reservoir: 8 } } }";

std::shared_ptr<Quantizer> Make(const std::string& fields, int64_t dim) {
  auto made = MakeQuantizer(
      absl::StrCat("[type.googleapis.com/semvq.ResidualConfig] { ", fields,
                   " }"),
      dim, 7);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

QuantizeContext Train(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.seed = 3;
  context.step = step;
  return context;
}

at::Tensor Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "nothing is named " << name;
  return at::zeros({});
}

at::Tensor Codebook(Quantizer& quantizer, int64_t level) {
  return quantizer
      .named_parameters()[absl::StrCat("levels.", level, ".codebook")];
}

// Level by level, from the codebooks alone.
TEST(ResidualTest, FollowsTheFormula) {
  at::manual_seed(1);
  auto q = Make(absl::StrCat("levels: 3 ", kVq), 4);
  const at::Tensor z = at::randn({2, 7, 4}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  at::Tensor left = z.view({14, 4}), sum = at::zeros({14, 4}, at::kDouble);
  double commitment = 0;
  for (int64_t i = 0; i < 3; ++i) {
    const at::Tensor book = Codebook(*q, i).detach();
    const at::Tensor codes = at::cdist(left, book).argmin(1);
    EXPECT_TRUE(at::equal(out.codes.select(2, i).reshape({14}), codes));
    const at::Tensor vectors = book.index_select(0, codes);
    commitment += (left - vectors).square().mean().item<double>() / 3;
    sum = sum + vectors;
    left = left - vectors;
  }
  EXPECT_TRUE(at::allclose(out.vectors.view({14, 4}), sum, 1e-12, 1e-14));
  EXPECT_NEAR(Named(out.losses, "commitment").item<double>(), commitment,
              1e-12);
  EXPECT_NEAR(Named(out.metrics, "quantization_error").item<double>(),
              left.square().sum(1).mean().item<double>(), 1e-10);
  EXPECT_NEAR(Named(out.metrics, "perplexity").item<double>(),
              (Named(out.metrics, "level0/perplexity") +
               Named(out.metrics, "level1/perplexity") +
               Named(out.metrics, "level2/perplexity"))
                      .item<double>() /
                  3,
              1e-5);
  EXPECT_FALSE(at::equal(Codebook(*q, 0), Codebook(*q, 1)));
}

TEST(ResidualTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  auto q = Make(absl::StrCat("levels: 3 ", kVq), 3);
  // Where autograd stops the gradient, the check must not look.
  for (const bool codes : {true, false}) {
    at::Tensor z = at::randn({1, 6, 3}, at::kDouble), e = Codebook(*q, 2);
    z.requires_grad_(!codes);
    e.requires_grad_(codes);
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& x) {
          return Named(q->Quantize(x[0], Train(0)).losses,
                       codes ? "codebook" : "commitment");
        },
        {z, e});
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(ResidualTest, TheGradientArrivesFromEveryLevelOrOnce) {
  at::manual_seed(3);
  const at::Tensor weights = at::randn({1, 5, 3}, at::kDouble);
  for (const bool detach : {true, false}) {
    auto q = Make(absl::StrCat("levels: 3 detach_residuals: ",
                               detach ? "true " : "false ", kVq),
                  3);
    at::Tensor z = at::randn({1, 5, 3}, at::kDouble).requires_grad_();
    const Quantized out = q->Quantize(z, Train(0));
    (out.vectors * weights).sum().backward();
    EXPECT_TRUE(at::allclose(z.grad(), weights * (detach ? 3 : 1)));
    EXPECT_TRUE(at::equal(out.vectors.detach(), q->Lookup(out.codes).detach()));
  }
}

TEST(ResidualTest, DropoutUsesEveryNumberOfLevelsAlike) {
  at::manual_seed(4);
  auto q =
      Make(absl::StrCat("levels: 4 dropout: true dropout_keep: 2 ", kVqEma), 3);
  const at::Tensor z = at::randn({2, 5, 3}, at::kDouble);
  std::map<int64_t, int64_t> drawn;
  for (int64_t step = 0; step < 300; ++step) {
    const Quantized out = q->Quantize(z, Train(step));
    const at::Tensor used = out.codes.ge(0).view({10, 4});
    EXPECT_TRUE(used.eq(used[0]).all().item<bool>());
    const int64_t levels = used[0].sum().item<int64_t>();
    ++drawn[levels];
    EXPECT_TRUE(used[0].narrow(0, 0, levels).all().item<bool>());
    EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
    EXPECT_TRUE(at::equal(out.codes, q->Quantize(z, Train(step)).codes));
    bool third = false;
    for (const auto& [name, value] : out.metrics)
      third |= name == "level3/perplexity";
    EXPECT_EQ(third, levels == 4);
    ASSERT_TRUE(q->AfterStep(Train(step + 1)).ok());
  }
  ASSERT_EQ(drawn.size(), 3u);
  for (const auto& [levels, times] : drawn) {
    EXPECT_GE(levels, 2);
    EXPECT_GT(times, 70) << levels;
  }
  // All of them outside training.
  EXPECT_TRUE(q->Quantize(z, QuantizeContext()).codes.ge(0).all().item<bool>());
}

TEST(ResidualTest, DroppedLevelsCountAsNothingInLossesAndLearnNothing) {
  at::manual_seed(5);
  auto q = Make(absl::StrCat("levels: 2 dropout: true ", kVqEma), 3);
  const at::Tensor z = at::randn({2, 5, 3}, at::kDouble);
  for (int64_t step = 0; step < 20; ++step) {
    const auto before = q->named_buffers()["levels.1.codebook"].clone();
    const Quantized out = q->Quantize(z, Train(step));
    const bool dropped = out.codes.select(2, 1).lt(0).all().item<bool>();
    ASSERT_TRUE(q->AfterStep(Train(step + 1)).ok());
    EXPECT_EQ(dropped,
              at::equal(before, q->named_buffers()["levels.1.codebook"]));
    if (!dropped) continue;
    // Half of the first level's.
    const double all = (z - out.vectors).square().mean().item<double>();
    EXPECT_NEAR(Named(out.losses, "commitment").item<double>(), all / 2, 1e-9);
  }
}

TEST(ResidualTest, OneCodebookForAllLevels) {
  at::manual_seed(6);
  auto q = Make(absl::StrCat("levels: 3 shared: true ", kVqEma), 3);
  EXPECT_EQ(q->info().codes_per_group, (std::vector<int64_t>{6, 6, 6}));
  const auto buffers = q->named_buffers();
  EXPECT_TRUE(buffers.contains("levels.0.starved"));
  EXPECT_FALSE(buffers.contains("levels.1.starved"));
  // The same code means the same vector wherever it stands.
  const at::Tensor codes =
      at::tensor({4, 1, 1, 4, 4, 1}, at::kLong).view({2, 3});
  const at::Tensor sum = q->Lookup(codes);
  const at::Tensor four = q->Lookup(at::tensor({4, -1, -1}, at::kLong));
  const at::Tensor one = q->Lookup(at::tensor({1, -1, -1}, at::kLong));
  EXPECT_TRUE(at::allclose(sum[0], four + 2 * one));
  EXPECT_TRUE(at::allclose(sum[1], 2 * four + one));
}

TEST(ResidualTest, SharedNoiseDiffersBetweenLevels) {
  auto q = Make(
      "levels: 2 shared: true quantizer { "
      "[type.googleapis.com/semvq.GumbelConfig] { num_codes: 50 } }",
      3);
  {
    // Logits that say nothing: the noise alone decides.
    at::NoGradGuard no_grad;
    for (const at::Tensor& p : q->parameters()) p.zero_();
  }
  const Quantized out =
      q->Quantize(at::zeros({1, 200, 3}, at::kDouble), Train(0));
  const double same = out.codes.select(2, 0)
                          .eq(out.codes.select(2, 1))
                          .to(at::kDouble)
                          .mean()
                          .item<double>();
  EXPECT_LT(same, 0.2);
  ASSERT_TRUE(out.entropy.has_value());
  EXPECT_NEAR(out.entropy->mean().item<double>(), 2 * std::log(50.0), 1e-9);
}

TEST(ResidualTest, FixedGridsGetFinerByTheLevelScale) {
  at::manual_seed(7);
  const std::string lfq =
      "quantizer { [type.googleapis.com/semvq.LfqConfig] { bits: 3 } }";
  auto q = Make("levels: 6 level_scale: 0.5 " + lfq, 3);
  const at::Tensor z = at::rand({1, 40, 3}, at::kDouble) * 4 - 2;
  const Quantized out = q->Quantize(z, QuantizeContext());
  // Signs at 1, 1/2, ... 1/32: binary digits of anything within (-2, 2).
  EXPECT_LE((out.vectors - z).abs().max().item<double>(), 1.0 / 32);
  EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
}

TEST(ResidualTest, LookupTakesCoarseCodes) {
  auto q = Make(absl::StrCat("levels: 3 ", kVq), 2);
  const at::Tensor coarse = q->Lookup(at::tensor({2, -1, -1}, at::kLong));
  EXPECT_TRUE(at::equal(coarse, Codebook(*q, 0)[2]));
  EXPECT_THROW(q->Lookup(at::tensor({-1, 2, 2}, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::tensor({1, 6, 2}, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::tensor({1, 2}, at::kLong)), c10::Error);
}

TEST(ResidualTest, NoCodesInNoCodesOut) {
  auto q = Make(
      "levels: 2 quantizer { [type.googleapis.com/semvq.NoneConfig] {} }", 3);
  EXPECT_FALSE(q->info().has_codes);
  const at::Tensor z = at::randn({1, 4, 3}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_FALSE(out.codes.defined());
  EXPECT_TRUE(at::allclose(out.vectors, z));
}

TEST(ResidualTest, RefusesBadConfigs) {
  using Change = void (*)(ResidualConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"quantizer", [](ResidualConfig& c) { c.clear_quantizer(); }},
      {"levels", [](ResidualConfig& c) { c.set_levels(0); }},
      {"levels", [](ResidualConfig& c) { c.set_levels(65); }},
      {"dropout_keep", [](ResidualConfig& c) { c.set_dropout_keep(0); }},
      {"dropout_keep",
       [](ResidualConfig& c) {
         c.set_dropout(true);
         c.set_dropout_keep(5);
       }},
      {"level_scale", [](ResidualConfig& c) { c.set_level_scale(0); }},
      {"level_scale", [](ResidualConfig& c) { c.set_level_scale(1e-6); }}};
  ResidualConfig good;
  good.mutable_quantizer()->set_type_url("type.googleapis.com/semvq.VqConfig");
  EXPECT_TRUE(ValidateResidual(good).ok());
  for (const auto& [field, change] : bad) {
    ResidualConfig config = good;
    change(config);
    const absl::Status status = ValidateResidual(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":");
  }
}

}  // namespace
}  // namespace semvq
