#include "encoders/cross_fusion/cross_fusion.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <vector>

#include "core/plugin/encoder.h"

namespace semvq {
namespace {

constexpr int64_t kTextDim = 16, kVisualDim = 12;

CrossFusionConfig SmallConfig() {
  CrossFusionConfig config;
  config.set_layers(2);
  config.set_heads(2);
  return config;
}

ContractBook Book() {
  ContractBook book;
  Contract text, visual;
  text.provides = {{"tokens", kTextDim}};
  visual.provides = {{"tokens", kVisualDim}};
  book.Add("text", text);
  book.Add("visual", visual);
  return book;
}

absl::StatusOr<std::shared_ptr<FusionEncoder>> TryMake(
    const CrossFusionConfig& config) {
  static const ContractBook book = Book();
  PluginContext context;
  context.instance = "fusion";
  context.book = &book;
  return MakeCrossFusion(config, context);
}

class CrossFusionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(31);
    absl::StatusOr<std::shared_ptr<FusionEncoder>> made =
        TryMake(SmallConfig());
    ASSERT_TRUE(made.ok()) << made.status();
    fusion_ = *made;
    fusion_->eval();
    // Larger weights than at the start of training, so that what a text reads
    // shows in the result.
    at::NoGradGuard no_grad;
    for (at::Tensor& p : fusion_->parameters())
      if (p.dim() == 2) p.mul_(10);
    text_.values = at::randn({4, 5, kTextDim});
    text_.mask = at::ones({4, 5}, at::kBool);
    text_.mask[2].narrow(0, 3, 2).fill_(false);
    text_.has_cls = true;
    for (int i = 0; i < 2; ++i) {
      Tokens image;
      image.values = at::randn({3, 10, kVisualDim});
      image.grid = {3, 3};
      image.has_cls = true;
      images_.push_back(image);
    }
  }

  static Tokens Gather(Tokens tokens, const at::Tensor& index) {
    tokens.values = tokens.values.index_select(0, index);
    if (tokens.mask.defined()) tokens.mask = tokens.mask.index_select(0, index);
    return tokens;
  }

  std::shared_ptr<FusionEncoder> fusion_;
  Tokens text_;
  std::vector<Tokens> images_;
  const at::Tensor index_ = at::tensor({2, 0, 2, 1}, at::kLong);
};

double MaxDifference(const Tokens& a, const Tokens& b) {
  return (a.values - b.values).abs().max().item<double>();
}

TEST_F(CrossFusionTest, KeepsTheTextsShape) {
  const Tokens fused = fusion_->Fuse(text_, {images_[0]}, index_);
  EXPECT_EQ(fused.values.sizes(), text_.values.sizes());
  EXPECT_TRUE(at::equal(fused.mask, text_.mask));
  EXPECT_TRUE(fused.has_cls);
  EXPECT_EQ(fusion_->dim(), kTextDim);
}

TEST_F(CrossFusionTest, IndexEqualsGatheredImages) {
  images_[1].mask = at::ones({3, 10}, at::kBool);
  images_[1].mask[2].narrow(0, 6, 4).fill_(false);
  for (const Tokens& image : images_) {
    at::Tensor leaf = image.values.detach().requires_grad_(true);
    Tokens source = image;
    source.values = leaf;
    const Tokens once = fusion_->Fuse(text_, {source}, index_);
    const Tokens gathered = fusion_->Fuse(text_, {Gather(source, index_)}, {});
    EXPECT_LT(MaxDifference(once, gathered), 1e-5);
    const auto a = torch::autograd::grad({once.values.pow(3).sum()}, {leaf})[0];
    const auto b =
        torch::autograd::grad({gathered.values.pow(3).sum()}, {leaf})[0];
    EXPECT_LT((a - b).abs().max().item<double>(),
              1e-4 * (1 + b.abs().max().item<double>()));
  }
  // The identity may be spelt out.
  Tokens texts = Gather(text_, at::arange(3));
  EXPECT_TRUE(
      at::equal(fusion_->Fuse(texts, {images_[0]}, at::arange(3)).values,
                fusion_->Fuse(texts, {images_[0]}, {}).values));
}

TEST_F(CrossFusionTest, EqualRunsOfAnImageEqualGatheredImages) {
  const at::Tensor runs = at::tensor({0, 0, 1, 1, 2, 2}, at::kLong);
  const Tokens texts = Gather(text_, at::tensor({0, 1, 2, 3, 1, 0}, at::kLong));
  EXPECT_LT(MaxDifference(fusion_->Fuse(texts, {images_[0]}, runs),
                          fusion_->Fuse(texts, {Gather(images_[0], runs)}, {})),
            1e-5);
}

TEST_F(CrossFusionTest, TextsReadTheirOwnImageOnly) {
  const Tokens before = fusion_->Fuse(text_, {images_[0]}, index_);
  images_[0].values[0].normal_();  // Read by text 1.
  const Tokens after = fusion_->Fuse(text_, {images_[0]}, index_);
  const at::Tensor change =
      (before.values - after.values).abs().flatten(1).amax(1);
  EXPECT_GT(change[1].item<double>(), 1e-2);
  EXPECT_EQ(change[0].item<double>() + change[2].item<double>() +
                change[3].item<double>(),
            0.0);
}

TEST_F(CrossFusionTest, MaskedTokensOfEitherSideAreNotSeen) {
  images_[0].mask = at::ones({3, 10}, at::kBool);
  images_[0].mask[2].narrow(0, 6, 4).fill_(false);
  const Tokens before = fusion_->Fuse(text_, {images_[0]}, index_);
  images_[0].values[2].narrow(0, 6, 4).normal_();
  text_.values[2].narrow(0, 3, 2).normal_();
  const Tokens after = fusion_->Fuse(text_, {images_[0]}, index_);
  const at::Tensor real = text_.mask.unsqueeze(-1);
  EXPECT_LT(((before.values - after.values) * real).abs().max().item<double>(),
            1e-6);
}

TEST_F(CrossFusionTest, SlotsAreReadInOrder) {
  const Tokens both = fusion_->Fuse(text_, images_, index_);
  const Tokens swapped = fusion_->Fuse(text_, {images_[1], images_[0]}, index_);
  EXPECT_GT(MaxDifference(both, swapped), 1e-3);
  EXPECT_GT(MaxDifference(both, fusion_->Fuse(text_, {images_[0]}, index_)),
            1e-3);
  EXPECT_GT(MaxDifference(both, fusion_->Fuse(text_, {images_[1]}, index_)),
            1e-3);
}

TEST_F(CrossFusionTest, EveryParameterGetsAGradient) {
  fusion_->train();
  const at::Tensor values = fusion_->Fuse(text_, images_, index_).values;
  (values * at::randn_like(values)).sum().backward();
  for (const auto& p : fusion_->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    EXPECT_GT(p.value().grad().abs().sum().item<double>(), 0.0) << p.key();
  }
}

TEST_F(CrossFusionTest, SameSeedSameTokens) {
  fusion_->train();
  auto fuse = [&](uint64_t seed) {
    torch::manual_seed(seed);
    return fusion_->Fuse(text_, images_, index_).values;
  };
  EXPECT_TRUE(at::equal(fuse(5), fuse(5)));
  EXPECT_FALSE(at::equal(fuse(5), fuse(6)));  // Dropout is on.
}

TEST_F(CrossFusionTest, WrongInputsThrow) {
  EXPECT_THROW(fusion_->Fuse(text_, {}, index_), c10::Error);
  EXPECT_THROW(fusion_->Fuse(text_, {text_}, index_), c10::Error);
  EXPECT_THROW(fusion_->Fuse(images_[0], {images_[0]}, {}), c10::Error);
  EXPECT_THROW(fusion_->Fuse(text_, {images_[0]}, {}), c10::Error);  // 4 != 3
}

TEST(CrossFusionContracts, DimensionsComeFromTheBook) {
  CrossFusionConfig config = SmallConfig();
  Contract contract = CrossFusionContract("fusion", config, Book());
  ASSERT_NE(contract.Find("fused"), nullptr);
  EXPECT_EQ(contract.Find("fused")->dim, kTextDim);
  ASSERT_EQ(contract.needs.size(), 2u);
  EXPECT_EQ(contract.needs[0].instance, "text");
  EXPECT_EQ(contract.needs[0].dim, 0);
  EXPECT_EQ(contract.needs[1].instance, "visual");

  config.set_dim(kTextDim + 2);
  contract = CrossFusionContract("fusion", config, Book());
  EXPECT_EQ(contract.needs[0].dim, kTextDim + 2);  // The matcher reports it.
  EXPECT_EQ(TryMake(config).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CrossFusionContracts, ErrorsAreReported) {
  EXPECT_TRUE(ValidateCrossFusion(CrossFusionConfig()).ok());
  CrossFusionConfig config = SmallConfig();
  config.set_heads(3);
  EXPECT_TRUE(ValidateCrossFusion(config).ok());  // The width is not known.
  EXPECT_EQ(TryMake(config).status().code(),
            absl::StatusCode::kInvalidArgument);
  config.set_dim(kTextDim);
  config.set_layers(0);
  config.set_text("");
  config.set_dropout(1.0);
  const absl::Status status = ValidateCrossFusion(config);
  for (const char* field : {"heads", "layers", "text", "dropout"})
    EXPECT_NE(status.message().find(field), absl::string_view::npos)
        << field << " in " << status;

  config = SmallConfig();
  config.set_visual("nobody");
  EXPECT_EQ(TryMake(config).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeCrossFusion(config, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semvq
