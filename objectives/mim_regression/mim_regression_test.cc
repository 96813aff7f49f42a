#include "objectives/mim_regression/mim_regression.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/objective/decoding.h"
#include "core/objective/losses.h"
#include "core/plugin/objective.h"
#include "objectives/mim_regression/config.pb.h"

namespace semvq {
namespace {

// Images of 8 x 8 pixels in patches of 2.
constexpr int64_t kDim = 6, kFixedDim = 5, kPatch = 2, kSide = 4, kPatches = 16;

MimRegressionConfig Config(MimRegressionConfig::Target target) {
  MimRegressionConfig config;
  config.set_target(target);
  config.set_patch_size(kPatch);
  if (target == MimRegressionConfig::FIXED) config.set_fixed("fixed");
  return config;
}

absl::StatusOr<std::shared_ptr<Objective>> TryMake(
    const MimRegressionConfig& config) {
  torch::manual_seed(21);
  ContractBook book;
  book.image_size = 8;
  Contract image, fixed;
  image.provides = {{kTokens, kDim}};
  fixed.provides = {{kTokens, kFixedDim}};
  book.Add("image", image);
  book.Add("fixed", fixed);
  PluginContext context;
  context.instance = "regression";
  context.book = &book;
  return MakeMimRegression(config, context);
}

std::shared_ptr<Objective> Make(const MimRegressionConfig& config) {
  auto made = TryMake(config);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    p.set_data(0.5 * at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

Tokens ImageTokens(const at::Tensor& values, bool has_cls) {
  Tokens tokens;
  tokens.values = values;
  tokens.has_cls = has_cls;
  tokens.grid = {kSide, kSide};
  return tokens;
}

Variant Masked(const std::string& by) {
  Variant variant;
  variant.image_mask = by;
  return variant;
}

// The objective over made-up tokens: of the masked image, of the target.
class Case {
 public:
  Case(const MimRegressionConfig& config, const at::Tensor& masked,
       const at::Tensor& target, bool has_cls = true)
      : objective(Make(config)),
        forward(TestBatch({.images = masked.size(0)}), /*with_teacher=*/true) {
    forward.student["regression"] = objective.get();
    Set(config, masked, target, has_cls);
  }

  void Set(const MimRegressionConfig& config, const at::Tensor& masked,
           const at::Tensor& target, bool has_cls) {
    const std::string by =
        config.mask_from().empty() ? "regression" : config.mask_from();
    forward->Set(ImageKey("image", kTokens, Masked(by)),
                 ImageTokens(masked, has_cls));
    Variant teacher;
    teacher.teacher = true;
    // Tells the grid.
    if (config.target() == MimRegressionConfig::PIXELS)
      forward->Set(ImageKey("image", kTokens), ImageTokens(masked, has_cls));
    if (config.target() == MimRegressionConfig::TEACHER)
      forward->Set(ImageKey("image", kTokens, teacher),
                   ImageTokens(target, has_cls));
    if (config.target() == MimRegressionConfig::FIXED)
      forward->Set(ImageKey("fixed", kTokens), ImageTokens(target, has_cls));
  }

  const ImageMask& mask() {
    return forward->Get<ImageMask>(ImageKey("regression", kImageMask));
  }

  std::shared_ptr<Objective> objective;
  TestForward forward;
};

at::Tensor Random(at::IntArrayRef sizes) {
  return at::randn(sizes, at::kDouble);
}

TEST(MimRegressionTest, PixelsOfHiddenPatchesAreRegressed) {
  torch::manual_seed(1);
  const at::Tensor tokens = Random({3, 1 + kPatches, kDim});
  for (bool normalize : {false, true}) {
    MimRegressionConfig config = Config(MimRegressionConfig::PIXELS);
    config.set_normalize(normalize);
    Case c(config, tokens, {});
    const ObjectiveOutput out = c.objective->Compute(*c.forward);
    const at::Tensor w = c.objective->named_parameters()["head.weight"];
    const at::Tensor b = c.objective->named_parameters()["head.bias"];
    double squares = 0, count = 0, cosine = 0;
    ASSERT_EQ(c.mask().positions.sizes(), at::IntArrayRef({3, 10}));  // 0.6 N
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t m = 0; m < 10; ++m) {
        const int64_t p = c.mask().positions[i][m].item<int64_t>();
        at::Tensor patch = c.forward.batch()
                               .images[i][0]
                               .narrow(1, p / kSide * kPatch, kPatch)
                               .narrow(2, p % kSide * kPatch, kPatch)
                               .reshape({-1});
        if (normalize)
          patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt();
        const at::Tensor guess = at::matmul(w, tokens[i][1 + p]) + b;
        squares += (guess - patch).square().sum().item<double>();
        count += static_cast<double>(patch.numel());
        cosine +=
            (guess.dot(patch) / guess.norm() / patch.norm()).item<double>() /
            30;
      }
    }
    EXPECT_NEAR(SumOf(out.losses).item<double>(), squares / count, 1e-10);
    EXPECT_NEAR(ValueOf(out.metrics, "cosine"), cosine, 1e-10);
    EXPECT_LT(ValueOf(out.metrics, "explained_variance"), 1);
  }
}

TEST(MimRegressionTest, FeaturesOfTheCleanImageAreRegressed) {
  torch::manual_seed(2);
  for (bool has_cls : {true, false}) {
    for (const auto target :
         {MimRegressionConfig::TEACHER, MimRegressionConfig::FIXED}) {
      const int64_t dim =
          target == MimRegressionConfig::FIXED ? kFixedDim : kDim;
      const int64_t first = has_cls ? 1 : 0;
      const at::Tensor tokens = Random({2, first + kPatches, kDim});
      const at::Tensor clean = Random({2, first + kPatches, dim});
      MimRegressionConfig config = Config(target);
      config.set_loss(MimRegressionConfig::COSINE);
      config.set_normalize(false);
      Case c(config, tokens, clean, has_cls);
      const ObjectiveOutput out = c.objective->Compute(*c.forward);
      const at::Tensor w = c.objective->named_parameters()["head.weight"];
      const at::Tensor b = c.objective->named_parameters()["head.bias"];
      double loss = 0;
      for (int64_t i = 0; i < 2; ++i) {
        for (int64_t m = 0; m < 10; ++m) {
          const int64_t p = first + c.mask().positions[i][m].item<int64_t>();
          const at::Tensor guess = at::matmul(w, tokens[i][p]) + b;
          loss += 1.0 / 20 - (guess.dot(clean[i][p]) / guess.norm() /
                              clean[i][p].norm() / 20)
                                 .item<double>();
        }
      }
      EXPECT_NEAR(SumOf(out.losses).item<double>(), loss, 1e-10);
      ASSERT_EQ(out.metrics.size(), 1u);
    }
  }
}

TEST(MimRegressionTest, GradientsAreRight) {
  torch::manual_seed(3);
  for (const auto target :
       {MimRegressionConfig::PIXELS, MimRegressionConfig::TEACHER}) {
    for (const auto loss :
         {MimRegressionConfig::MSE, MimRegressionConfig::L1,
          MimRegressionConfig::SMOOTH_L1, MimRegressionConfig::COSINE}) {
      for (int layers : {0, 1}) {
        MimRegressionConfig config = Config(target);
        config.set_loss(loss);
        config.set_smooth_l1_beta(0.7);
        config.set_decoder_layers(layers);
        config.set_decoder_heads(2);
        const at::Tensor clean = Random({2, 1 + kPatches, kDim});
        auto objective = Make(config);
        std::vector<at::Tensor> inputs = {
            Random({2, 1 + kPatches, kDim}).requires_grad_(true),
            objective->named_parameters()["head.weight"]};
        const auto f = [&](const std::vector<at::Tensor>& x) {
          Case c(config, x[0], clean);
          c.forward.student["regression"] = objective.get();
          return SumOf(objective->Compute(*c.forward).losses);
        };
        const absl::Status status = NumericGradientCheck(f, inputs);
        EXPECT_TRUE(status.ok()) << config.ShortDebugString() << status;
      }
    }
  }
}

TEST(MimRegressionTest, TargetsCarryNoGradient) {
  torch::manual_seed(4);
  const at::Tensor clean =
      Random({2, 1 + kPatches, kFixedDim}).requires_grad_(true);
  Case c(Config(MimRegressionConfig::FIXED), Random({2, 1 + kPatches, kDim}),
         clean);
  SumOf(c.objective->Compute(*c.forward).losses).backward();
  EXPECT_FALSE(clean.grad().defined());
}

TEST(MimRegressionTest, AnotherObjectivesMaskMayBeUsed) {
  torch::manual_seed(5);
  MimRegressionConfig config = Config(MimRegressionConfig::PIXELS);
  config.set_mask_from("mim");
  const Contract contract =
      MimRegressionContract("regression", config, ContractBook());
  EXPECT_EQ(contract.Find(kImageMask), nullptr);
  ASSERT_EQ(contract.needs.size(), 2u);
  EXPECT_EQ(contract.needs[1].instance, "mim");

  Case c(config, Random({2, 1 + kPatches, kDim}), {});
  ImageMask mask;
  mask.positions = torch::tensor({{1}, {3}}, at::kLong);
  mask.mask =
      at::zeros({2, kPatches}, at::kBool).scatter_(1, mask.positions, true);
  c.forward->Set(ImageKey("mim", kImageMask), mask);
  const ObjectiveOutput out = c.objective->Compute(*c.forward);
  EXPECT_EQ(c.forward->Get<at::Tensor>(ImageKey("regression", "mim_prediction"))
                .sizes(),
            at::IntArrayRef({2, 1, 3 * kPatch * kPatch}));
}

TEST(MimRegressionTest, AnotherGridIsAnError) {
  MimRegressionConfig config = Config(MimRegressionConfig::PIXELS);
  config.set_mask_from("mim");
  Case c(config, Random({2, 1 + 9, kDim}), {});
  ImageMask mask;
  mask.positions = torch::tensor({{1}, {3}}, at::kLong);
  mask.mask = at::zeros({2, 9}, at::kBool);
  c.forward->Set(ImageKey("mim", kImageMask), mask);
  EXPECT_THROW(c.objective->Compute(*c.forward), c10::Error);
}

TEST(MimRegressionTest, ContractSaysWhatTheTargetNeeds) {
  const auto contract = [](MimRegressionConfig::Target target) {
    return MimRegressionContract("r", Config(target), ContractBook());
  };
  EXPECT_FALSE(contract(MimRegressionConfig::PIXELS).needs_teacher);
  EXPECT_TRUE(contract(MimRegressionConfig::TEACHER).needs_teacher);
  const Contract fixed = contract(MimRegressionConfig::FIXED);
  EXPECT_FALSE(fixed.needs_teacher);
  ASSERT_EQ(fixed.needs.size(), 2u);
  EXPECT_TRUE(fixed.needs[1].needs_fixed);
}

TEST(MimRegressionTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateMimRegression(MimRegressionConfig()).ok());
  const std::vector<std::pair<std::string, void (*)(MimRegressionConfig&)>>
      bad = {
          {"image", [](auto& c) { c.set_image(""); }},
          {"fixed", [](auto& c) { c.set_target(MimRegressionConfig::FIXED); }},
          {"fixed", [](auto& c) { c.set_fixed("somebody"); }},
          {"smooth_l1_beta", [](auto& c) { c.set_smooth_l1_beta(0); }},
          {"mask_ratio", [](auto& c) { c.set_mask_ratio(1); }},
          {"min_block_patches", [](auto& c) { c.set_min_block_patches(0); }},
          {"max_block_aspect", [](auto& c) { c.set_max_block_aspect(0.5); }},
          {"patch_size", [](auto& c) { c.set_patch_size(0); }},
          {"decoder_layers", [](auto& c) { c.set_decoder_layers(-1); }},
          {"decoder_heads", [](auto& c) { c.set_decoder_heads(-1); }},
      };
  for (const auto& [field, change] : bad) {
    MimRegressionConfig config;
    change(config);
    const absl::Status status = ValidateMimRegression(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
}

TEST(MimRegressionTest, RefusesPatchesAndHeadsThatDoNotDivide) {
  MimRegressionConfig config = Config(MimRegressionConfig::PIXELS);
  config.set_patch_size(3);
  EXPECT_NE(TryMake(config).status().message().find("patch_size 3"),
            std::string::npos);
  config = Config(MimRegressionConfig::TEACHER);
  config.set_decoder_layers(1);
  config.set_decoder_heads(4);
  EXPECT_NE(TryMake(config).status().message().find("4 heads"),
            std::string::npos);
}

}  // namespace
}  // namespace semvq
