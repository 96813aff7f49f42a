#include "encoders/resnet/resnet.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/checkpoint/safetensors.h"
#include "core/plugin/encoder.h"
#include "core/random/stream.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

constexpr int64_t kBatch = 2, kDim = 12;

// A token stands for 8 x 8 pixels.
ResnetConfig SmallConfig() {
  ResnetConfig config;
  config.set_variant(ResnetConfig::RESNET18);
  config.set_width(4);
  config.set_stages(2);
  config.set_dim(kDim);
  config.set_pool(false);
  config.set_image_size(32);
  return config;
}

// The feature map as it is.
ResnetConfig TrunkConfig(ResnetConfig::Variant variant) {
  ResnetConfig config;
  config.set_variant(variant);
  config.set_dim(0);
  config.set_pool(false);
  config.set_positions(false);
  config.set_layer_norm(false);
  return config;
}

std::shared_ptr<ImageEncoder> Make(const ResnetConfig& config,
                                   uint64_t seed = 1) {
  torch::manual_seed(seed);
  PluginContext context;
  context.instance = "image";
  auto made = MakeResnet(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->eval();
  return *made;
}

std::map<std::string, at::Tensor> State(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> state;
  for (const auto& p : module.named_parameters()) state[p.key()] = p.value();
  for (const auto& b : module.named_buffers()) state[b.key()] = b.value();
  return state;
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// --- against timm, by testdata/make_fixture.py.

const char kFolder[] = "encoders/resnet/testdata/";

// The generator's draws, uniform in [-1/2, 1/2).
at::Tensor Centred(uint64_t key, at::IntArrayRef sizes) {
  at::Tensor out = at::empty(sizes);
  RandomStream stream(key);
  float* to = out.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i)
    to[i] = static_cast<float>(
        static_cast<double>(stream.Next() >> 40) * 0x1.0p-24 - 0.5);
  return out;
}

void Fill(torch::nn::Module& module) {
  at::NoGradGuard no_grad;
  uint64_t number = 0;
  for (auto& [name, tensor] : State(module)) {
    if (name == "mask_patch") continue;  // Ours.
    at::Tensor values = Centred(number++, tensor.sizes());
    if (tensor.dim() == 4) {
      const double fan_in = static_cast<double>(tensor[0].numel());
      values *= std::exp2(std::nearbyint(std::log2(std::sqrt(24 / fan_in))));
    } else if (absl::EndsWith(name, "running_var") ||
               absl::EndsWith(name, "weight")) {
      values += 1;
    }
    tensor.copy_(values);
  }
}

at::Tensor Images() { return Centred(1000, {2, 3, 64, 64}) * 4; }

// A feature map [B, C, H, W] as tokens.
at::Tensor AsTokens(const at::Tensor& map) {
  return map.flatten(2).transpose(1, 2);
}

class ResnetGolden : public testing::Test {
 protected:
  void SetUp() override {
    auto file =
        SafetensorsFile::Open(absl::StrCat(kFolder, "resnet.safetensors"));
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }
  at::Tensor Get(const std::string& name) {
    auto tensor = file_->Get(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *tensor;
  }
  // The largest error, in units of the largest value.
  static double Error(const at::Tensor& got, const at::Tensor& want) {
    EXPECT_EQ(got.sizes(), want.sizes());
    return MaxDifference(got, want) / want.abs().max().item<double>();
  }
  std::unique_ptr<SafetensorsFile> file_;
};

TEST_F(ResnetGolden, FixtureWasMadeByTheScriptBesideIt) {
  auto hash = Sha256File(absl::StrCat(kFolder, "make_fixture.py"));
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(file_->metadata().at("generator_sha256"), *hash)
      << "run testdata/make_fixture.py again";
}

TEST_F(ResnetGolden, EqualsTimmInEvaluation) {
  for (const auto& [name, variant, images] :
       {std::tuple("resnet18", ResnetConfig::RESNET18, 2),
        std::tuple("resnet50", ResnetConfig::RESNET50, 1)}) {
    auto resnet = Make(TrunkConfig(variant));
    Fill(*resnet);
    at::NoGradGuard no_grad;
    const at::Tensor pixels = Images().narrow(0, 0, images);
    const at::Tensor want = AsTokens(Get(name));
    EXPECT_LT(Error(resnet->Encode({pixels, {}}).values, want), 1e-5) << name;
    // The comparison sees one changed weight.
    State(*resnet).at("conv1.weight")[7][1][3][3].add_(0.5);
    EXPECT_GT(Error(resnet->Encode({pixels, {}}).values, want), 1e-3) << name;
  }
}

TEST_F(ResnetGolden, EqualsTimmInTraining) {
  auto resnet = Make(TrunkConfig(ResnetConfig::RESNET18));
  Fill(*resnet);
  resnet->train();
  at::NoGradGuard no_grad;
  EXPECT_LT(Error(resnet->Encode({Images(), {}}).values,
                  AsTokens(Get("resnet18.train"))),
            1e-4);
  for (const char* part : {"running_mean", "running_var"}) {
    EXPECT_LT(Error(State(*resnet).at(absl::StrCat("layer4.1.bn2.", part)),
                    Get(absl::StrCat("resnet18.train.", part))),
              1e-5)
        << part;
  }
}

// --- on its own.

class ResnetTest : public testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(11); }
};

TEST_F(ResnetTest, EncodesToAGridWithoutCls) {
  for (const bool pool : {false, true}) {
    ResnetConfig config = SmallConfig();
    config.set_pool(pool);
    auto resnet = Make(config);
    const int64_t side = pool ? 16 : 8;
    EXPECT_EQ(ResnetStride(config), side);
    const Tokens tokens = resnet->Encode({at::randn({kBatch, 3, 32, 48}), {}});
    EXPECT_FALSE(tokens.has_cls);
    EXPECT_FALSE(tokens.mask.defined());
    EXPECT_EQ(tokens.grid.height, 32 / side);
    EXPECT_EQ(tokens.grid.width, 48 / side);
    EXPECT_EQ(tokens.values.sizes(),
              at::IntArrayRef({kBatch, 32 * 48 / side / side, kDim}));
    // The final norm has unit weights.
    EXPECT_LT(tokens.values.mean(-1).abs().max().item<double>(), 1e-5);
  }
}

TEST_F(ResnetTest, TokensStandInTheOrderOfThePatches) {
  // Without positions the token of the brightened square changes most.
  ResnetConfig config = SmallConfig();
  config.set_positions(false);
  config.set_layer_norm(false);
  auto resnet = Make(config);
  const at::Tensor pixels = at::randn({1, 3, 32, 48});
  at::Tensor changed = pixels.clone();
  changed.narrow(2, 16, 8).narrow(3, 8, 8).add_(5.0);  // Row 2, column 1.
  const at::Tensor difference = (resnet->Encode({changed, {}}).values -
                                 resnet->Encode({pixels, {}}).values)
                                    .norm(2, -1);
  EXPECT_EQ(difference.argmax().item<int64_t>(), 2 * 6 + 1);
}

TEST_F(ResnetTest, MaskedPatchesAreNotSeenAndTheirNeighboursAre) {
  for (const bool pool : {false, true}) {
    ResnetConfig config = SmallConfig();
    config.set_pool(pool);
    const int64_t side = ResnetStride(config), columns = 32 / side;
    auto resnet = Make(config);
    const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
    at::Tensor mask = at::zeros({kBatch, columns * columns}, at::kBool);
    mask[0][0] = true;
    mask[1][columns * columns - 1] = true;
    at::Tensor changed = pixels.clone();
    changed[0].narrow(1, 0, side).narrow(2, 0, side).normal_();
    changed[1].narrow(1, 32 - side, side).narrow(2, 32 - side, side).normal_();
    const at::Tensor hidden = resnet->Encode({pixels, mask}).values;
    EXPECT_TRUE(at::equal(hidden, resnet->Encode({changed, mask}).values));
    EXPECT_GT(MaxDifference(resnet->Encode({pixels, {}}).values,
                            resnet->Encode({changed, {}}).values),
              1e-3);
    // What is beside a hidden patch shows in its token.
    changed[0].narrow(1, 0, side).narrow(2, side, side).normal_();
    EXPECT_GT(MaxDifference(hidden[0][0],
                            resnet->Encode({changed, mask}).values[0][0]),
              1e-4);
  }
}

TEST_F(ResnetTest, MaskedPassesLeaveTheRunningAveragesAlone) {
  auto resnet = Make(SmallConfig());
  resnet->train();
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
  const at::Tensor mean = State(*resnet).at("bn1.running_mean");
  const at::Tensor before = mean.clone();
  at::Tensor mask = at::zeros({kBatch, 16}, at::kBool);
  mask.select(1, 2).fill_(true);
  resnet->Encode({pixels, mask});
  EXPECT_TRUE(at::equal(mean, before));
  resnet->Encode({pixels, {}});
  EXPECT_FALSE(at::equal(mean, before));
}

TEST_F(ResnetTest, FrozenBatchNormsDoNotLearn) {
  ResnetConfig config = SmallConfig();
  config.set_frozen_batch_norm(true);
  auto resnet = Make(config);
  resnet->train();
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
  const at::Tensor trained = resnet->Encode({pixels, {}}).values;
  trained.sum().backward();
  for (const auto& [name, tensor] : State(*resnet)) {
    if (absl::StrContains(name, "bn")) {
      EXPECT_FALSE(tensor.requires_grad()) << name;
    }
  }
  EXPECT_TRUE(at::equal(State(*resnet).at("bn1.running_mean"), at::zeros({4})));
  resnet->eval();
  EXPECT_TRUE(at::equal(trained, resnet->Encode({pixels, {}}).values));
}

TEST_F(ResnetTest, EveryParameterGetsAGradient) {
  auto resnet = Make(SmallConfig());
  resnet->train();
  at::Tensor mask = at::zeros({kBatch, 16}, at::kBool);
  mask.narrow(1, 3, 4).fill_(true);
  const at::Tensor values =
      resnet->Encode({at::randn({kBatch, 3, 32, 32}), mask}).values;
  (values * at::randn_like(values)).sum().backward();
  for (const auto& p : resnet->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<double>(), 0.0) << p.key();
  }
}

TEST_F(ResnetTest, RunsInDouble) {
  auto resnet = Make(SmallConfig());
  const at::Tensor pixels = at::randn({kBatch, 3, 32, 32});
  const at::Tensor single = resnet->Encode({pixels, {}}).values;
  resnet->to(at::kDouble);
  const at::Tensor wide = resnet->Encode({pixels.to(at::kDouble), {}}).values;
  EXPECT_EQ(wide.scalar_type(), at::kDouble);
  EXPECT_LT(MaxDifference(wide, single), 1e-4);
}

TEST_F(ResnetTest, NamesFollowTorchvision) {
  ResnetConfig config;
  config.set_width(2);
  const auto state = State(*Make(config));
  for (const char* name :
       {"conv1.weight", "bn1.running_var", "layer1.0.conv3.weight",
        "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias",
        "layer3.5.bn2.weight", "layer4.2.bn3.running_mean", "proj.bias",
        "mask_patch", "pos_embed", "norm.weight"})
    EXPECT_EQ(state.count(name), 1u) << name;
  EXPECT_EQ(state.count("layer1.1.downsample.0.weight"), 0u);
  EXPECT_EQ(state.at("layer2.0.conv2.weight").sizes(),
            at::IntArrayRef({4, 4, 3, 3}));
  EXPECT_EQ(state.at("layer4.0.downsample.0.weight").sizes(),
            at::IntArrayRef({64, 32, 1, 1}));
}

TEST_F(ResnetTest, HasThePublishedNumberOfParameters) {
  // torchvision's, less the classifier's 1000 * (C + 1), plus the mask patch.
  for (const auto& [variant, with_classifier, channels] :
       {std::tuple(ResnetConfig::RESNET18, 11689512, 512),
        std::tuple(ResnetConfig::RESNET34, 21797672, 512),
        std::tuple(ResnetConfig::RESNET50, 25557032, 2048),
        std::tuple(ResnetConfig::RESNET101, 44549160, 2048),
        std::tuple(ResnetConfig::RESNET152, 60192808, 2048)}) {
    const ResnetConfig config = TrunkConfig(variant);
    int64_t count = 0;
    for (const at::Tensor& p : Make(config)->parameters()) count += p.numel();
    EXPECT_EQ(count, with_classifier - 1000 * (channels + 1) + 3 * 32 * 32)
        << ResnetConfig::Variant_Name(variant);
    EXPECT_EQ(ResnetDim(config), channels);
  }
}

TEST_F(ResnetTest, WrongInputsThrow) {
  auto resnet = Make(SmallConfig());
  EXPECT_THROW(resnet->Encode({at::randn({1, 3, 30, 32}), {}}), c10::Error);
  EXPECT_THROW(resnet->Encode({at::randn({1, 1, 32, 32}), {}}), c10::Error);
  EXPECT_THROW(
      resnet->Encode({at::randn({2, 3, 32, 32}), at::zeros({2, 9}, at::kBool)}),
      c10::Error);
  // One value a channel has no variance.
  ResnetConfig one = SmallConfig();
  one.set_stages(4);
  auto deep = Make(one);
  deep->train();
  EXPECT_THROW(deep->Encode({at::randn({1, 3, 32, 32}), {}}), c10::Error);
  EXPECT_NO_THROW(deep->Encode({at::randn({2, 3, 32, 32}), {}}));
}

TEST(ResnetErrors, ValidationNamesEveryField) {
  EXPECT_TRUE(ValidateResnet(ResnetConfig()).ok());
  const std::vector<std::pair<std::string, void (*)(ResnetConfig&)>> bad = {
      {"width", [](ResnetConfig& c) { c.set_width(0); }},
      {"stages", [](ResnetConfig& c) { c.set_stages(5); }},
      {"dim", [](ResnetConfig& c) { c.set_dim(-1); }},
      {"image_size", [](ResnetConfig& c) { c.set_image_size(100); }},
      {"batch_norm_momentum",
       [](ResnetConfig& c) { c.set_batch_norm_momentum(0); }},
      {"batch_norm_eps", [](ResnetConfig& c) { c.set_batch_norm_eps(-1); }}};
  for (const auto& [field, change] : bad) {
    ResnetConfig config;
    change(config);
    const absl::Status status = ValidateResnet(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
    EXPECT_FALSE(MakeResnet(config, {}).ok());
  }
}

TEST(ResnetErrors, TrainedImagesMustBeWholeTokens) {
  ContractBook book;
  book.image_size = 60;
  PluginContext context;
  context.book = &book;
  EXPECT_EQ(MakeResnet(SmallConfig(), context).status().code(),
            absl::StatusCode::kInvalidArgument);
  book.image_size = 64;
  EXPECT_TRUE(MakeResnet(SmallConfig(), context).ok());
}

TEST(ResnetContracts, ProvidesTokensOfItsWidth) {
  const Contract contract = ResnetContract("image", SmallConfig(), {});
  ASSERT_NE(contract.Find("tokens"), nullptr);
  EXPECT_EQ(contract.Find("tokens")->dim, kDim);
  EXPECT_EQ(ResnetContract("image", TrunkConfig(ResnetConfig::RESNET50), {})
                .Find("tokens")
                ->dim,
            2048);
  EXPECT_EQ(contract.batch_keys, std::vector<std::string>{"image"});
}

}  // namespace
}  // namespace semvq
