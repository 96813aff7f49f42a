#include "encoders/vit/vit.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/plugin/encoder.h"
#include "core/plugin/registry.h"

namespace semvq {
namespace {

constexpr int64_t kBatch = 2, kDim = 16;

VitConfig SmallConfig(std::vector<int> stem = {}) {
  VitConfig config;
  config.set_patch_size(8);
  config.set_dim(kDim);
  config.set_depth(2);
  config.set_heads(2);
  config.set_image_size(32);
  for (int channels : stem) config.add_conv_stem_dims(channels);
  return config;
}

std::shared_ptr<ImageEncoder> Make(const VitConfig& config, uint64_t seed = 1) {
  torch::manual_seed(seed);
  PluginContext context;
  context.instance = "image";
  absl::StatusOr<std::shared_ptr<ImageEncoder>> made = MakeVit(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->eval();
  return *made;
}

// Both ways to embed patches.
class VitTest : public ::testing::TestWithParam<std::vector<int>> {
 protected:
  void SetUp() override { torch::manual_seed(11); }
};

TEST_P(VitTest, EncodesToClsAndPatches) {
  auto vit = Make(SmallConfig(GetParam()));
  const Tokens tokens = vit->Encode({at::randn({kBatch, 3, 32, 32}), {}});
  EXPECT_EQ(tokens.values.sizes().vec(),
            (std::vector<int64_t>{kBatch, 17, kDim}));
  EXPECT_TRUE(tokens.has_cls);
  EXPECT_FALSE(tokens.mask.defined());
  EXPECT_EQ(tokens.grid.height, 4);
  EXPECT_EQ(tokens.grid.width, 4);
  EXPECT_EQ(vit->dim(), kDim);
  // The final norm has unit weights.
  EXPECT_LT(tokens.values.mean(-1).abs().max().item<double>(), 1e-4);
}

TEST_P(VitTest, MaskedPatchesAreNotSeen) {
  auto vit = Make(SmallConfig(GetParam()));
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
  at::Tensor mask = at::zeros({kBatch, 16}, at::kBool);
  mask[0][5] = true;   // Row 1, column 1.
  mask[1][15] = true;  // Row 3, column 3.
  at::Tensor changed = pixels.clone();
  changed[0].narrow(1, 8, 8).narrow(2, 8, 8).normal_();
  changed[1].narrow(1, 24, 8).narrow(2, 24, 8).normal_();
  const at::Tensor hidden = vit->Encode({pixels, mask}).values;
  EXPECT_TRUE(at::equal(hidden, vit->Encode({changed, mask}).values));
  // Without the mask they are seen, and the mask changes the tokens.
  const at::Tensor seen = vit->Encode({pixels, {}}).values;
  EXPECT_GT(
      (seen - vit->Encode({changed, {}}).values).abs().max().item<double>(),
      1e-3);
  EXPECT_GT((seen - hidden).abs().max().item<double>(), 1e-3);
  // Pixels beside the masked patch still matter.
  changed[0].narrow(1, 0, 8).narrow(2, 0, 8).normal_();
  EXPECT_FALSE(at::equal(hidden, vit->Encode({changed, mask}).values));
}

TEST_P(VitTest, InterpolatesPositionsForOtherSizes) {
  auto vit = Make(SmallConfig(GetParam()));
  const Tokens tokens = vit->Encode({at::randn({1, 3, 48, 64}), {}});
  EXPECT_EQ(tokens.values.size(1), 1 + 6 * 8);
  EXPECT_EQ(tokens.grid.height, 6);
  EXPECT_EQ(tokens.grid.width, 8);
}

TEST_P(VitTest, EveryParameterGetsAGradient) {
  auto vit = Make(SmallConfig(GetParam()));
  vit->train();
  at::Tensor mask = at::zeros({kBatch, 16}, at::kBool);
  mask.narrow(1, 3, 4).fill_(true);
  const at::Tensor values =
      vit->Encode({at::randn({kBatch, 3, 32, 32}), mask}).values;
  (values * at::randn_like(values)).sum().backward();
  for (const auto& p : vit->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<double>(), 0.0) << p.key();
  }
}

TEST_P(VitTest, SameSeedSameTokens) {
  VitConfig config = SmallConfig(GetParam());
  config.set_dropout(0.2);
  config.set_attention_dropout(0.2);
  config.set_drop_path(0.3);
  const at::Tensor pixels = at::randn({8, 3, 32, 32});
  auto train = [&](uint64_t seed) {
    auto vit = Make(config, 4);
    vit->train();
    torch::manual_seed(seed);
    return vit->Encode({pixels, {}}).values;
  };
  EXPECT_TRUE(at::equal(train(5), train(5)));
  EXPECT_FALSE(at::equal(train(5), train(6)));
  EXPECT_TRUE(at::equal(Make(config, 4)->Encode({pixels, {}}).values,
                        Make(config, 4)->Encode({pixels, {}}).values));
}

TEST_P(VitTest, RunsInDouble) {
  auto vit = Make(SmallConfig(GetParam()));
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
  at::Tensor mask = at::zeros({kBatch, 16}, at::kBool);
  mask.narrow(1, 0, 2).fill_(true);
  const at::Tensor single = vit->Encode({pixels, mask}).values;
  vit->to(at::kDouble);
  const at::Tensor wide = vit->Encode({pixels.to(at::kDouble), mask}).values;
  EXPECT_EQ(wide.scalar_type(), at::kDouble);
  EXPECT_LT((wide - single).abs().max().item<double>(), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Embeddings, VitTest,
                         ::testing::Values(std::vector<int>{},
                                           std::vector<int>{8},
                                           std::vector<int>{8, 12, 16}));

// The patch embedding equals the strided convolution it stands for.
TEST(VitPatches, EmbeddingIsAConvolution) {
  VitConfig config = SmallConfig();
  config.set_depth(1);
  auto vit = Make(config);
  at::NoGradGuard no_grad;
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 24});
  auto parameters = vit->named_parameters();
  // Leave nothing but embedding and final norm: zero the block's outputs.
  for (const char* name :
       {"blocks.0.attn.proj.weight", "blocks.0.mlp.fc2.weight", "pos_embed"})
    parameters[name].zero_();
  at::Tensor want = at::conv2d(pixels, parameters["patch_embed.proj.weight"],
                               parameters["patch_embed.proj.bias"], {8, 8})
                        .flatten(2)
                        .transpose(1, 2);
  want = at::layer_norm(want, {kDim}, {}, {}, 1e-6);
  const at::Tensor got = vit->Encode({pixels, {}}).values.narrow(1, 1, 4 * 3);
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-3);
}

TEST(VitPatches, NamesFollowTimm) {
  auto vit = Make(SmallConfig());
  std::set<std::string> names;
  for (const auto& p : vit->named_parameters()) names.insert(p.key());
  for (const char* name :
       {"cls_token", "mask_token", "pos_embed", "patch_embed.proj.weight",
        "blocks.1.norm1.weight", "blocks.1.attn.qkv.bias",
        "blocks.1.attn.proj.weight", "blocks.1.mlp.fc1.weight", "norm.bias"})
    EXPECT_EQ(names.count(name), 1u) << name;
  EXPECT_EQ(vit->named_parameters()["pos_embed"].sizes().vec(),
            (std::vector<int64_t>{1, 17, kDim}));
}

// A table in every layer, one for all, with layer scale; BEiT's.
TEST(VitRelative, PatchesAreToldApart) {
  for (const auto relative : {VitConfig::PER_LAYER, VitConfig::SHARED}) {
    VitConfig config = SmallConfig();
    config.set_absolute_positions(false);
    config.set_relative_positions(relative);
    config.set_layer_scale(0.1);
    auto vit = Make(config);
    const auto parameters = vit->named_parameters();
    EXPECT_FALSE(parameters.contains("pos_embed"));
    EXPECT_TRUE(parameters.contains("blocks.1.ls2.gamma"));
    const std::string name =
        relative == VitConfig::SHARED
            ? "rel_pos_bias.relative_position_bias_table"
            : "rel_pos_bias.1.relative_position_bias_table";
    ASSERT_TRUE(parameters.contains(name));
    const at::Tensor table = parameters[name];
    EXPECT_EQ(table.sizes().vec(), (std::vector<int64_t>{7 * 7 + 3, 2}));

    torch::manual_seed(2);
    const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
    // Without positions a shuffle of patches would shuffle the tokens.
    const at::Tensor flipped =
        at::cat({pixels.narrow(3, 24, 8), pixels.narrow(3, 8, 16),
                 pixels.narrow(3, 0, 8)},
                3);
    const auto cls = [&](const at::Tensor& x) {
      return vit->Encode({x, {}}).values.select(1, 0);
    };
    at::NoGradGuard no_grad;
    EXPECT_GT((cls(pixels) - cls(flipped)).abs().max().item<double>(), 1e-6);
    for (const auto& p : parameters)
      if (p.key().find("rel_pos_bias") == 0) p.value().zero_();
    EXPECT_LT((cls(pixels) - cls(flipped)).abs().max().item<double>(), 1e-6);
    EXPECT_EQ(vit->Encode({at::randn({1, 3, 48, 64}), {}}).values.size(1),
              1 + 6 * 8);
  }
}

TEST(VitRelative, EveryParameterGetsAGradient) {
  VitConfig config = SmallConfig();
  config.set_relative_positions(VitConfig::PER_LAYER);
  config.set_layer_scale(0.1);
  auto vit = Make(config);
  vit->train();
  const at::Tensor values =
      vit->Encode({at::randn({kBatch, 3, 32, 32}),
                   at::ones({kBatch, 16}, at::kBool).triu()})
          .values;
  (values * at::randn_like(values)).sum().backward();
  for (const auto& p : vit->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<double>(), 0.0) << p.key();
  }
}

// Seeds and checkpoints of before the options hold: nothing is drawn for what
// is off.
TEST(VitRelative, DefaultsAddNothing) {
  auto plain = Make(SmallConfig(), 7);
  VitConfig config = SmallConfig();
  config.set_layer_scale(0.1);
  auto scaled = Make(config, 7);
  const auto ours = plain->named_parameters();
  EXPECT_EQ(ours.size(), 3u + 2 + 2 * 12 + 2);
  for (const auto& p : ours)
    EXPECT_TRUE(at::equal(p.value(), scaled->named_parameters()[p.key()]))
        << p.key();
}

TEST(VitPositions, SinesAndCosinesOfRowAndColumn) {
  VitConfig config = SmallConfig();
  config.set_position_init(VitConfig::SINCOS);
  config.set_position_scale(0.5);
  auto vit = Make(config);
  const at::Tensor positions = vit->named_parameters()["pos_embed"];
  EXPECT_TRUE(positions.requires_grad());
  ASSERT_EQ(positions.sizes().vec(), (std::vector<int64_t>{1, 17, kDim}));
  EXPECT_EQ(positions[0][0].abs().max().item<double>(), 0.0);  // [CLS]
  const int row = 2, column = 3, wave = 1;
  const at::Tensor patch = positions[0][1 + row * 4 + column];
  const double rate = std::pow(10000.0, -wave / 4.0);
  EXPECT_NEAR(patch[wave].item<double>(), 0.5 * std::sin(column * rate), 1e-6);
  EXPECT_NEAR(patch[4 + wave].item<double>(), 0.5 * std::cos(column * rate),
              1e-6);
  EXPECT_NEAR(patch[8 + wave].item<double>(), 0.5 * std::sin(row * rate), 1e-6);
  EXPECT_NEAR(patch[12 + wave].item<double>(), 0.5 * std::cos(row * rate),
              1e-6);
}

TEST(VitErrors, WrongInputsThrow) {
  auto vit = Make(SmallConfig());
  EXPECT_THROW(vit->Encode({at::randn({1, 3, 30, 32}), {}}), c10::Error);
  EXPECT_THROW(vit->Encode({at::randn({1, 1, 32, 32}), {}}), c10::Error);
  EXPECT_THROW(
      vit->Encode({at::randn({2, 3, 32, 32}), at::zeros({2, 9}, at::kBool)}),
      c10::Error);
}

TEST(VitErrors, ValidationNamesEveryField) {
  EXPECT_TRUE(ValidateVit(VitConfig()).ok());
  VitConfig config = SmallConfig({4, 4, 4, 4});
  config.set_heads(3);
  config.set_image_size(30);
  config.set_drop_path(1.0);
  config.set_layer_scale(-1.0);
  config.set_absolute_positions(false);
  const absl::Status status = ValidateVit(config);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* field :
       {"heads", "image_size", "drop_path", "conv_stem_dims", "layer_scale",
        "absolute_positions"})
    EXPECT_NE(status.message().find(field), absl::string_view::npos)
        << field << " in " << status;
  EXPECT_FALSE(MakeVit(config, {}).ok());
}

TEST(VitErrors, TrainedImagesMustBeWholePatches) {
  ContractBook book;
  book.image_size = 60;
  PluginContext context;
  context.book = &book;
  EXPECT_EQ(MakeVit(SmallConfig(), context).status().code(),
            absl::StatusCode::kInvalidArgument);
  book.image_size = 64;
  EXPECT_TRUE(MakeVit(SmallConfig(), context).ok());
}

TEST(VitContracts, ProvidesTokens) {
  const Contract contract = VitContract("image", SmallConfig(), {});
  ASSERT_NE(contract.Find("tokens"), nullptr);
  EXPECT_EQ(contract.Find("tokens")->dim, kDim);
  EXPECT_EQ(contract.batch_keys, std::vector<std::string>{"image"});
}

}  // namespace
}  // namespace semvq
