#include "objectives/mim/mim.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "objectives/mim/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kImageDim = 4, kTextDim = 3, kSide = 4, kPatches = 16;

std::shared_ptr<Objective> Make(const MimConfig& config,
                                const std::vector<int64_t>& codes) {
  torch::manual_seed(16);
  ContractBook book;
  Contract image, text, codebook;
  image.provides = {{kTokens, kImageDim}};
  text.provides = {{kTokens, kTextDim}};
  codebook.codes.codes_per_group = codes;
  book.Add("image", image);
  book.Add("text", text);
  book.Add("codebook", codebook);
  PluginContext context;
  context.instance = "mim";
  context.book = &book;
  auto made = MakeMim(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    p.set_data(0.5 * at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

void SetClean(Forward& forward, const at::Tensor& codes, bool teacher = false) {
  Variant variant;
  variant.teacher = teacher;
  Tokens tokens;
  tokens.values =
      at::zeros({codes.size(0), 1 + kPatches, kImageDim}, at::kDouble);
  tokens.has_cls = true;
  tokens.grid = {kSide, kSide};
  forward.Set(ImageKey("image", kTokens, variant), tokens);
  QuantizedTokens quantized;
  quantized.quantized.codes = codes;
  forward.Set(ImageKey("codebook", kQuantized, variant), quantized);
}

void SetMasked(Forward& forward, const at::Tensor& values) {
  Variant masked;
  masked.image_mask = "mim";
  Tokens tokens;
  tokens.values = values;
  tokens.has_cls = true;
  tokens.grid = {kSide, kSide};
  forward.Set(ImageKey("image", kTokens, masked), tokens);
}

void SetText(Forward& forward, const at::Tensor& values) {
  Tokens text;
  text.values = values;
  text.mask = forward.batch().text_mask;
  forward.Set(TextKey("text", kTokens), text);
}

ImageMask Draw(Objective& mim, const Batch& batch, const at::Tensor& codes,
               uint64_t seed = 7) {
  TestForward forward(batch, false, {true, seed, 0});
  forward.student["mim"] = &mim;
  SetClean(*forward, codes);
  return forward->Get<ImageMask>(ImageKey("mim", kImageMask));
}

at::Tensor Codes(int64_t images, int64_t k, int64_t groups = 1) {
  return at::randint(0, k, {images, kPatches, groups}, at::kLong);
}

TEST(MimTest, EveryStrategyHidesTheSameNumberInEveryImage) {
  for (MimConfig::Mask strategy :
       {MimConfig::RANDOM, MimConfig::BLOCKWISE, MimConfig::SAME_CODE}) {
    MimConfig config;
    config.set_mask(strategy);
    config.set_min_block_patches(4);
    auto mim = Make(config, {5});
    const Batch batch = TestBatch({.images = 50});
    const at::Tensor codes = Codes(50, 5);
    const ImageMask mask = Draw(*mim, batch, codes);
    const int64_t count = 6;  // round(0.4 * 16)
    ASSERT_EQ(mask.positions.sizes(), at::IntArrayRef({50, count}));
    ASSERT_EQ(mask.mask.sizes(), at::IntArrayRef({50, kPatches}));
    EXPECT_TRUE(mask.mask.sum(1).eq(count).all().item<bool>());
    EXPECT_TRUE(mask.mask.gather(1, mask.positions).all().item<bool>());
    EXPECT_TRUE(
        mask.positions.diff(1, 1).gt(0).all().item<bool>());  // Ascending.
    // Images differ, seeds differ, the draw repeats.
    EXPECT_GT(std::get<0>(at::unique_dim(mask.mask.to(at::kLong), 0)).size(0),
              10);
    EXPECT_TRUE(Draw(*mim, batch, codes).mask.equal(mask.mask));
    EXPECT_FALSE(Draw(*mim, batch, codes, 8).mask.equal(mask.mask));

    // A sample's mask does not depend on its row.
    Batch part = batch;
    part.sample_numbers = {149, 100};
    part.image_ids = {"x", "y"};
    part.images = batch.images.slice(0, 0, 2);
    const at::Tensor rows = torch::tensor({49, 0}, at::kLong);
    EXPECT_TRUE(Draw(*mim, part, codes.index_select(0, rows))
                    .mask.equal(mask.mask.index_select(0, rows)));
  }
}

TEST(MimTest, SameCodeHidesAllPatchesOfOneCode) {
  MimConfig config;
  config.set_mask(MimConfig::SAME_CODE);
  auto mim = Make(config, {8, 8});
  torch::manual_seed(17);
  const at::Tensor codes = Codes(200, 8, 2);
  const ImageMask mask = Draw(*mim, TestBatch({.images = 200}), codes);
  for (int64_t b = 0; b < 200; ++b) {
    bool whole = false, full = false;
    for (int64_t k = 0; k < 8; ++k) {
      const at::Tensor same = codes[b].select(1, 0).eq(k);
      const int64_t total = same.sum().item<int64_t>();
      const int64_t hidden =
          same.logical_and(mask.mask[b]).sum().item<int64_t>();
      whole |= total > 0 && total <= 6 && hidden == total;
      full |= total > 6 && hidden == 6;
    }
    EXPECT_TRUE(whole || full) << b;
  }
  // One code everywhere: the capacity is kept.
  EXPECT_TRUE(Draw(*mim, TestBatch({.images = 2}),
                   at::zeros({2, kPatches, 2}, at::kLong))
                  .mask.sum(1)
                  .eq(6)
                  .all()
                  .item<bool>());
}

TEST(MimTest, LossAndMetricsAreMeansOverGroupsAndHiddenPatches) {
  auto mim = Make(MimConfig(), {5, 3});
  torch::manual_seed(18);
  const at::Tensor codes = at::cat({Codes(3, 5), Codes(3, 3)}, -1);
  codes[1][4].fill_(-1);  // A patch that is not valid is no target.
  const at::Tensor values =
      at::randn({3, 1 + kPatches, kImageDim}, at::kDouble);
  TestForward forward(TestBatch({.images = 3}));
  forward.student["mim"] = mim.get();
  SetClean(*forward, codes);
  SetMasked(*forward, values);
  const ObjectiveOutput out = mim->Compute(*forward);
  const ImageMask& mask = forward->Get<ImageMask>(ImageKey("mim", kImageMask));

  double loss = 0, top1 = 0, majority = 0, entropy = 0;
  for (int64_t g : {0, 1}) {
    const std::string head = "heads." + std::to_string(g);
    const at::Tensor w = mim->named_parameters()[head + ".weight"];
    const at::Tensor bias = mim->named_parameters()[head + ".bias"];
    std::vector<double> counts(5, 0.0);
    double group_loss = 0, hits = 0, n = 0;
    for (int64_t b = 0; b < 3; ++b) {
      for (int64_t m = 0; m < mask.positions.size(1); ++m) {
        const int64_t p = mask.positions[b][m].item<int64_t>();
        const int64_t code = codes[b][p][g].item<int64_t>();
        if (code < 0) continue;
        const at::Tensor z = at::matmul(w, values[b][1 + p]) + bias;
        group_loss -= (z[code] - z.exp().sum().log()).item<double>();
        hits += z.argmax().item<int64_t>() == code;
        counts[code] += 1;
        n += 1;
      }
    }
    loss += group_loss / n / 2;
    top1 += hits / n / 2;
    majority += *std::max_element(counts.begin(), counts.end()) / n / 2;
    for (double c : counts) {
      if (c > 0) entropy -= c / n * std::log(c / n) / 2;
    }
  }
  EXPECT_NEAR(SumOf(out.losses).item<double>(), loss, 1e-10);
  EXPECT_NEAR(ValueOf(out.metrics, "top1"), top1, 1e-6);
  EXPECT_NEAR(ValueOf(out.metrics, "majority"), majority, 1e-6);
  EXPECT_NEAR(ValueOf(out.metrics, "target_entropy"), entropy, 1e-6);
}

TEST(MimTest, TargetsMayComeFromTheTeacher) {
  MimConfig config;
  config.set_targets(MimConfig::TEACHER);
  EXPECT_TRUE(MimContract("mim", config, ContractBook()).needs_teacher);
  auto mim = Make(config, {5});
  TestForward forward(TestBatch({.images = 3}), /*with_teacher=*/true);
  forward.student["mim"] = mim.get();
  // The student's codes are never asked for: they are not set.
  SetClean(*forward, at::full({3, kPatches, 1}, 2, at::kLong),
           /*teacher=*/true);
  SetMasked(*forward, at::zeros({3, 1 + kPatches, kImageDim}, at::kDouble));
  const at::Tensor bias = mim->named_parameters()["heads.0.bias"];
  EXPECT_NEAR(SumOf(mim->Compute(*forward).losses).item<double>(),
              -at::log_softmax(bias, 0)[2].item<double>(), 1e-10);
}

TEST(MimTest, GradientsAreRight) {
  torch::manual_seed(19);
  const at::Tensor codes = at::cat({Codes(2, 4), Codes(2, 3)}, -1);
  for (MimConfig::PredictFrom from : {MimConfig::IMAGE, MimConfig::FUSED}) {
    MimConfig config;
    config.set_predict_from(from);
    config.set_fusion_layers(1);
    config.set_fusion_heads(2);
    auto mim = Make(config, {4, 3});
    std::vector<at::Tensor> inputs = {
        at::randn({2, 1 + kPatches, kImageDim}, at::kDouble),
        at::randn({4, 6, kTextDim}, at::kDouble),
        mim->named_parameters()["heads.1.weight"]};
    inputs[0].requires_grad_(true);
    const auto loss = [&](const std::vector<at::Tensor>& x) {
      TestForward forward(TestBatch({.images = 2, .texts_per_image = 2}));
      forward.student["mim"] = mim.get();
      SetClean(*forward, codes);
      SetMasked(*forward, x[0]);
      SetText(*forward, x[1]);
      return SumOf(mim->Compute(*forward).losses);
    };
    inputs[1].requires_grad_(from == MimConfig::FUSED);
    const absl::Status status = NumericGradientCheck(loss, inputs);
    EXPECT_TRUE(status.ok()) << status;
    if (from == MimConfig::FUSED) {
      // The first text of each image is read, and only its real tokens.
      loss(inputs).backward();
      const at::Tensor grad = inputs[1].grad();
      EXPECT_GT(grad[0].abs().sum().item<double>(), 0);
      EXPECT_GT(grad[2].abs().sum().item<double>(), 0);
      EXPECT_EQ(grad[1].abs().sum().item<double>(), 0);
      EXPECT_EQ(grad[3].abs().sum().item<double>(), 0);
      EXPECT_EQ(grad[0].slice(0, 3).abs().sum().item<double>(), 0);
    }
  }
}

TEST(MimTest, ContractNeedsCodes) {
  const Contract contract = MimContract("mim", MimConfig(), ContractBook());
  ASSERT_EQ(contract.needs.size(), 2u);
  EXPECT_TRUE(contract.needs[1].needs_codes);
  EXPECT_FALSE(contract.needs_teacher);
  MimConfig fused;
  fused.set_predict_from(MimConfig::FUSED);
  EXPECT_EQ(MimContract("mim", fused, ContractBook()).needs.size(), 3u);
}

TEST(MimTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateMim(MimConfig()).ok());
  const std::vector<std::pair<std::string, void (*)(MimConfig&)>> bad = {
      {"image", [](MimConfig& c) { c.set_image(""); }},
      {"quantizer", [](MimConfig& c) { c.set_quantizer(""); }},
      {"mask_ratio", [](MimConfig& c) { c.set_mask_ratio(0); }},
      {"mask_ratio", [](MimConfig& c) { c.set_mask_ratio(1); }},
      {"min_block_patches", [](MimConfig& c) { c.set_min_block_patches(0); }},
      {"max_block_aspect", [](MimConfig& c) { c.set_max_block_aspect(0.5); }},
      {"text",
       [](MimConfig& c) {
         c.set_predict_from(MimConfig::FUSED);
         c.set_text("");
       }},
      {"fusion_layers",
       [](MimConfig& c) {
         c.set_predict_from(MimConfig::FUSED);
         c.set_fusion_layers(0);
       }},
      {"fusion_heads", [](MimConfig& c) {
         c.set_predict_from(MimConfig::FUSED);
         c.set_fusion_heads(-1);
       }}};
  for (const auto& [field, change] : bad) {
    MimConfig config;
    change(config);
    const absl::Status status = ValidateMim(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
}

TEST(MimTest, RefusesAQuantizerWithoutCodesAndHeadsThatDoNotDivide) {
  ContractBook book;
  Contract image, text;
  image.provides = {{kTokens, 10}};
  text.provides = {{kTokens, kTextDim}};
  book.Add("image", image);
  book.Add("text", text);
  book.Add("codebook", Contract());
  PluginContext context;
  context.instance = "mim";
  context.book = &book;
  absl::Status status = MakeMim(MimConfig(), context).status();
  EXPECT_NE(status.message().find("codebook has no codes"), std::string::npos);
  Contract codebook;
  codebook.codes.codes_per_group = {4};
  book.Add("codebook", codebook);
  MimConfig config;
  config.set_predict_from(MimConfig::FUSED);
  config.set_fusion_heads(3);
  status = MakeMim(config, context).status();
  EXPECT_NE(status.message().find("3 heads"), std::string::npos) << status;
}

}  // namespace
}  // namespace semvq
