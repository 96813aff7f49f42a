#include "objectives/reconstruction/reconstruction.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "objectives/reconstruction/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kTokenDim = 3, kTextDim = 5, kImageSize = 4, kPatch = 2;

ReconstructionConfig SmallConfig() {
  ReconstructionConfig config;
  config.set_patch_size(kPatch);
  config.set_dim(4);
  config.set_depth(1);
  config.set_heads(2);
  return config;
}

absl::StatusOr<std::shared_ptr<Objective>> TryMake(
    const ReconstructionConfig& config) {
  torch::manual_seed(20);
  ContractBook book;
  book.image_size = kImageSize;
  Contract image, text;
  image.provides = {{kTokens, kTokenDim}};
  text.provides = {{kTokens, kTextDim}};
  book.Add("image", image);
  book.Add("text", text);
  PluginContext context;
  context.instance = "reconstruction";
  context.book = &book;
  return MakeReconstruction(config, context);
}

std::shared_ptr<Objective> Make(const ReconstructionConfig& config) {
  auto made = TryMake(config);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    p.set_data(0.5 * at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

struct Rig {
  Rig(Objective& objective, const at::Tensor& tokens, const at::Tensor& text)
      : forward(TestBatch(
            {.images = 2, .texts_per_image = 2, .image_size = kImageSize})) {
    forward.student["reconstruction"] = &objective;
    QuantizedTokens quantized;
    quantized.tokens = tokens;
    forward->Set(ImageKey("codebook", kQuantized), quantized);
    if (text.defined()) {
      Tokens words;
      words.values = text;
      words.mask = forward.batch().text_mask;
      forward->Set(TextKey("text", kTokens), words);
    }
  }
  TestForward forward;
};

struct Inputs {
  at::Tensor tokens = at::randn({2, 4, kTokenDim}, at::kDouble);
  at::Tensor text = at::randn({4, 6, kTextDim}, at::kDouble);
};

const ViewKey kPixels = ImageKey("reconstruction", kReconstruction);

TEST(ReconstructionTest, LossComparesTheViewWithTheImage) {
  for (bool l1 : {false, true}) {
    ReconstructionConfig config = SmallConfig();
    if (l1) config.set_loss(ReconstructionConfig::L1);
    auto objective = Make(config);
    Inputs in;
    Rig rig(*objective, in.tokens, in.text);
    const ObjectiveOutput out = objective->Compute(*rig.forward);
    const at::Tensor image = rig.forward->Get<at::Tensor>(kPixels);
    ASSERT_EQ(image.sizes(), at::IntArrayRef({2, 3, kImageSize, kImageSize}));
    const at::Tensor truth = rig.forward.batch().images.select(1, 0);
    const at::Tensor error = image - truth;
    const double mse = error.square().mean().item<double>();
    EXPECT_NEAR(SumOf(out.losses).item<double>(),
                l1 ? error.abs().mean().item<double>() : mse, 1e-12);

    // The constant to beat is the mean patch of the batch.
    double constant = 0;
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < kPatch; ++y) {
        for (int64_t x = 0; x < kPatch; ++x) {
          const at::Tensor values = truth.select(1, c)
                                        .slice(1, y, kImageSize, kPatch)
                                        .slice(2, x, kImageSize, kPatch);
          constant += (values - values.mean()).square().mean().item<double>();
        }
      }
    }
    constant /= 3 * kPatch * kPatch;
    EXPECT_NEAR(ValueOf(out.metrics, "explained_variance"), 1 - mse / constant,
                1e-10);
  }
}

TEST(ReconstructionTest, TokensStandForTheirPatches) {
  ReconstructionConfig config = SmallConfig();
  config.set_condition_on_text(false);
  auto objective = Make(config);
  Inputs in;
  Rig rig(*objective, in.tokens, {});
  const at::Tensor patches = rig.forward->Get<at::Tensor>(
      ImageKey("reconstruction", "reconstruction_patches"));
  const at::Tensor image = rig.forward->Get<at::Tensor>(kPixels);
  ASSERT_EQ(patches.sizes(), at::IntArrayRef({2, 4, 3 * kPatch * kPatch}));
  // Token 1 is the upper right patch; channel 2, its lower left pixel.
  EXPECT_EQ(patches[1][1][2 * 4 + 2].item<double>(),
            image[1][2][1][2].item<double>());
  EXPECT_EQ(patches[0][2][0].item<double>(), image[0][0][2][0].item<double>());
}

TEST(ReconstructionTest, NormalisedPatchesAreTheTarget) {
  ReconstructionConfig config = SmallConfig();
  config.set_normalize_patches(true);
  auto objective = Make(config);
  Inputs in;
  Rig rig(*objective, in.tokens, in.text);
  const ObjectiveOutput out = objective->Compute(*rig.forward);
  const at::Tensor image = rig.forward->Get<at::Tensor>(kPixels);
  const at::Tensor truth = rig.forward.batch().images.select(1, 0);
  double loss = 0;
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t p = 0; p < 4; ++p) {
      const int64_t y = p / 2 * kPatch, x = p % 2 * kPatch;
      const at::Tensor seen =
          truth[b].slice(1, y, y + kPatch).slice(2, x, x + kPatch);
      const at::Tensor made =
          image[b].slice(1, y, y + kPatch).slice(2, x, x + kPatch);
      // In the normalised space the error shrinks by the patch's deviation.
      const double n = 3 * kPatch * kPatch;
      const double mean = seen.mean().item<double>();
      const double variance =
          (seen - mean).square().sum().item<double>() / (n - 1) + 1e-6;
      loss += (made - seen).square().mean().item<double>() / variance / 8;
    }
  }
  EXPECT_NEAR(SumOf(out.losses).item<double>(), loss, 1e-9);
}

TEST(ReconstructionTest, ReadsTheFirstTextOfEachImageUnlessToldNotTo) {
  Inputs in;
  const auto pixels = [&in](Objective& objective, const at::Tensor& text) {
    Rig rig(objective, in.tokens, text);
    return rig.forward->Get<at::Tensor>(kPixels).clone();
  };
  at::Tensor second = in.text.clone();
  second[1].fill_(9);
  second[3].fill_(9);
  at::Tensor first = in.text.clone();
  first[2].slice(0, 0, 2).fill_(9);
  auto reads = Make(SmallConfig());
  EXPECT_TRUE(pixels(*reads, second).equal(pixels(*reads, in.text)));
  EXPECT_TRUE(pixels(*reads, first)[0].equal(pixels(*reads, in.text)[0]));
  EXPECT_FALSE(pixels(*reads, first)[1].equal(pixels(*reads, in.text)[1]));
  // Without the caption the text is not even asked for.
  ReconstructionConfig config = SmallConfig();
  config.set_condition_on_text(false);
  config.set_text("");
  ASSERT_TRUE(ValidateReconstruction(config).ok());
  auto blind = Make(config);
  EXPECT_NO_THROW(pixels(*blind, {}));
}

TEST(ReconstructionTest, GradientsAreRight) {
  for (bool normalize : {false, true}) {
    ReconstructionConfig config = SmallConfig();
    config.set_normalize_patches(normalize);
    auto objective = Make(config);
    Inputs in;
    std::vector<at::Tensor> inputs = {
        in.tokens, in.text,
        objective->named_parameters()["decoder.position.weight"],
        objective->named_parameters()["decoder.head.weight"]};
    for (at::Tensor& x : inputs) x.requires_grad_(true);
    const absl::Status status = NumericGradientCheck(
        [&objective](const std::vector<at::Tensor>& x) {
          Rig rig(*objective, x[0], x[1]);
          return SumOf(objective->Compute(*rig.forward).losses);
        },
        inputs);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(ReconstructionTest, TheTextGradientCanBeStopped) {
  for (bool stop : {false, true}) {
    ReconstructionConfig config = SmallConfig();
    config.set_stop_text_gradient(stop);
    auto objective = Make(config);
    Inputs in;
    in.tokens.requires_grad_(true);
    in.text.requires_grad_(true);
    Rig rig(*objective, in.tokens, in.text);
    SumOf(objective->Compute(*rig.forward).losses).backward();
    EXPECT_GT(in.tokens.grad().abs().sum().item<double>(), 0);
    EXPECT_EQ(in.text.grad().defined(), !stop);
  }
}

TEST(ReconstructionTest, RefusesTokensOfAnotherGrid) {
  auto objective = Make(SmallConfig());
  Inputs in;
  Rig rig(*objective, at::randn({2, 9, kTokenDim}, at::kDouble), in.text);
  EXPECT_THROW(objective->Compute(*rig.forward), c10::Error);
}

TEST(ReconstructionTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateReconstruction(ReconstructionConfig()).ok());
  using Change = void (*)(ReconstructionConfig&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"quantizer", [](ReconstructionConfig& c) { c.set_quantizer(""); }},
      {"image", [](ReconstructionConfig& c) { c.set_image(""); }},
      {"text", [](ReconstructionConfig& c) { c.set_text(""); }},
      {"patch_size", [](ReconstructionConfig& c) { c.set_patch_size(0); }},
      {"dim", [](ReconstructionConfig& c) { c.set_dim(-4); }},
      {"depth", [](ReconstructionConfig& c) { c.set_depth(0); }},
      {"heads", [](ReconstructionConfig& c) { c.set_heads(-1); }},
      {"heads", [](ReconstructionConfig& c) { c.set_heads(3); }}};
  for (const auto& [field, change] : bad) {
    ReconstructionConfig config;
    change(config);
    const absl::Status status = ValidateReconstruction(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
  ReconstructionConfig config = SmallConfig();
  config.set_patch_size(3);
  EXPECT_NE(TryMake(config).status().message().find("does not divide"),
            std::string::npos);
  config = SmallConfig();
  config.set_image("nobody");
  EXPECT_NE(TryMake(config).status().message().find("nobody"),
            std::string::npos);
}

}  // namespace
}  // namespace semvq
