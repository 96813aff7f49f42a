#include "encoders/cross_fusion/cross_fusion.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <map>
#include <string>
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

// Attention of one layer by hand, from the values that go into it.
at::Tensor MapByHand(const torch::nn::Module& fusion, const std::string& layer,
                     const at::Tensor& x, const at::Tensor& image) {
  const auto parameters = fusion.named_parameters();
  const auto linear = [&](const char* name, const at::Tensor& in) {
    return at::linear(in, parameters["layer." + layer + name + ".weight"],
                      parameters["layer." + layer + name + ".bias"]);
  };
  const auto heads = [](const at::Tensor& t) {
    return t.unflatten(-1, {2, t.size(-1) / 2}).transpose(1, 2);
  };
  const at::Tensor q = heads(linear(".cross_attn.q", x));
  const at::Tensor k = heads(linear(".cross_attn.kv", image).chunk(2, -1)[0]);
  return at::softmax(at::matmul(q, k.transpose(-2, -1)) /
                         std::sqrt(static_cast<double>(kTextDim / 2)),
                     -1);
}

TEST_F(CrossFusionTest, MapsAreTheLayersAttention) {
  fusion_->to(at::kDouble);
  for (Tokens* t : {&text_, &images_[0], &images_[1]})
    t->values = t->values.to(at::kDouble);
  images_[0].mask = at::ones({3, 10}, at::kBool);
  images_[0].mask[2].narrow(0, 6, 4).fill_(false);
  const auto fused = fusion_->FuseWithMaps(text_, images_, index_, 1);
  ASSERT_EQ(fused.maps.size(), 2u);
  for (const at::Tensor& map : fused.maps) {
    ASSERT_EQ(map.sizes().vec(), (std::vector<int64_t>{4, 2, 5, 10}));
    EXPECT_LT((map.sum(-1) - 1).abs().max().item<double>(), 1e-12);
  }
  // Texts 0 and 2 read image 2, whose last tokens are padding.
  EXPECT_EQ(fused.maps[0][2].narrow(-1, 6, 4).abs().max().item<double>(), 0);
  EXPECT_GT(fused.maps[0][1].narrow(-1, 6, 4).abs().max().item<double>(), 0);
  EXPECT_LT(MaxDifference(fused.tokens, fusion_->Fuse(text_, images_, index_)),
            1e-12);

  // The second slot's queries in the first layer: BERT's order of the layers.
  const auto first = fusion_->FuseWithMaps(text_, {images_[1]}, index_, 0);
  const auto parameters = fusion_->named_parameters();
  const auto norm = [&](const char* name, const at::Tensor& x) {
    return at::layer_norm(x, {kTextDim},
                          parameters[std::string(name) + ".weight"],
                          parameters[std::string(name) + ".bias"], 1e-12);
  };
  const at::Tensor qkv =
      at::linear(text_.values, parameters["layer.0.attn.qkv.weight"],
                 parameters["layer.0.attn.qkv.bias"])
          .unflatten(-1, {3, 2, kTextDim / 2});
  const auto part = [&](int64_t i) { return qkv.select(2, i).transpose(1, 2); };
  at::Tensor scores = at::matmul(part(0), part(1).transpose(-2, -1)) /
                      std::sqrt(static_cast<double>(kTextDim / 2));
  scores = scores.masked_fill(
      text_.mask.logical_not().unsqueeze(1).unsqueeze(1), -1e300);
  const at::Tensor self = at::linear(
      at::matmul(at::softmax(scores, -1), part(2)).transpose(1, 2).flatten(2),
      parameters["layer.0.attn.proj.weight"],
      parameters["layer.0.attn.proj.bias"]);
  const at::Tensor x = norm("layer.0.norm1", text_.values + self);
  const at::Tensor by_hand =
      MapByHand(*fusion_, "0", x, images_[1].values.index_select(0, index_));
  EXPECT_LT((first.maps[0] - by_hand).abs().max().item<double>(), 1e-12);
}

// Nobody pays for maps that nobody asked for: the same bits before, between and
// after requests, and no map is kept.
TEST_F(CrossFusionTest, WithoutARequestNothingChanges) {
  const at::Tensor before = fusion_->Fuse(text_, images_, index_).values;
  {
    const auto fused = fusion_->FuseWithMaps(text_, images_, index_, 0);
    // In float32 the plain path rounds otherwise than the fused kernel.
    EXPECT_FALSE(at::equal(fused.tokens.values, before));
    EXPECT_TRUE(at::allclose(fused.tokens.values, before, 1e-4, 1e-4));
  }
  EXPECT_THROW(fusion_->FuseWithMaps(text_, {}, index_, 0), c10::Error);
  EXPECT_TRUE(at::equal(fusion_->Fuse(text_, images_, index_).values, before));
  EXPECT_THROW(fusion_->FuseWithMaps(text_, images_, index_, 2), c10::Error);
  EXPECT_THROW(fusion_->FuseWithMaps(text_, images_, index_, -1), c10::Error);
}

// In evaluation, where nothing is trained, and with checkpointing in training.
TEST_F(CrossFusionTest, MapsHaveGradientsInEveryMode) {
  CrossFusionConfig config = SmallConfig();
  config.set_activation_checkpointing(true);
  config.set_dropout(0);
  config.set_attention_dropout(0);
  torch::manual_seed(32);
  auto checkpointing = TryMake(config);
  ASSERT_TRUE(checkpointing.ok());
  for (at::Tensor& p : fusion_->parameters()) p.requires_grad_(false);
  for (FusionEncoder* fusion : {fusion_.get(), checkpointing->get()}) {
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto fused = fusion->FuseWithMaps(text_, images_, index_, layer);
      const auto gradients = torch::autograd::grad(
          {fused.tokens.values.select(1, 0).pow(3).sum()}, fused.maps);
      for (const at::Tensor& g : gradients)
        EXPECT_GT(g.abs().max().item<double>(), 0);
    }
  }
}

// ALBEF for image pairs: twice the layers, images by turns, keys and values of
// two neighbours the same. Composed by hand from fusions of one layer.
TEST_F(CrossFusionTest, SlotCopiesReadTheImagesByTurns) {
  CrossFusionConfig config = SmallConfig();
  config.set_slot_copies(2);
  auto made = TryMake(config);
  ASSERT_TRUE(made.ok()) << made.status();
  FusionEncoder& pair = **made;
  pair.eval();
  at::NoGradGuard no_grad;
  for (at::Tensor& p : pair.parameters())
    if (p.dim() == 2) p.mul_(10);
  const auto parameters = pair.named_parameters();
  EXPECT_FALSE(parameters.contains("layer_slot1.0.cross_attn.kv.weight"));
  EXPECT_TRUE(parameters.contains("layer_slot1.0.cross_attn.q.weight"));

  Tokens by_hand = text_;
  for (const char* layer : {"0.", "1."}) {
    for (int slot = 0; slot < 2; ++slot) {
      CrossFusionConfig one = SmallConfig();
      one.set_layers(1);
      auto single = TryMake(one);
      ASSERT_TRUE(single.ok());
      (*single)->eval();
      for (auto& p : (*single)->named_parameters()) {
        const std::string name = p.key().substr(8);  // After "layer.0."
        const at::Tensor* from = parameters.find(
            (slot == 0 ? "layer." : "layer_slot1.") + (layer + name));
        if (from == nullptr)
          from = parameters.find(std::string("layer.") + layer + name);
        ASSERT_NE(from, nullptr) << p.key();
        p.value().copy_(*from);
      }
      by_hand = (*single)->Fuse(by_hand, {images_[slot]}, index_);
    }
  }
  const Tokens fused = pair.Fuse(text_, images_, index_);
  EXPECT_LT(MaxDifference(fused, by_hand), 1e-5);
  EXPECT_GT(
      MaxDifference(fused, pair.Fuse(text_, {images_[1], images_[0]}, index_)),
      1e-3);

  const auto with_maps = pair.FuseWithMaps(text_, images_, index_, 1);
  ASSERT_EQ(with_maps.maps.size(), 2u);
  EXPECT_LT((with_maps.maps[1].sum(-1) - 1).abs().max().item<double>(), 1e-5);
  EXPECT_GT((with_maps.maps[0] - with_maps.maps[1]).abs().max().item<double>(),
            1e-3);
  EXPECT_THROW(pair.Fuse(text_, {images_[0]}, index_), c10::Error);
}

TEST_F(CrossFusionTest, SlotCopiesTrainWithAndWithoutCheckpointing) {
  std::map<std::string, at::Tensor> grads[2];
  for (const bool checkpointing : {false, true}) {
    CrossFusionConfig config = SmallConfig();
    config.set_slot_copies(2);
    config.set_activation_checkpointing(checkpointing);
    torch::manual_seed(33);
    auto made = TryMake(config);
    ASSERT_TRUE(made.ok());
    (*made)->train();
    torch::manual_seed(34);
    const at::Tensor values = (*made)->Fuse(text_, images_, index_).values;
    (values * at::randn_like(values)).sum().backward();
    for (const auto& p : (*made)->named_parameters()) {
      ASSERT_TRUE(p.value().grad().defined()) << p.key();
      grads[checkpointing][p.key()] = p.value().grad();
    }
  }
  for (const auto& [name, grad] : grads[0]) {
    EXPECT_GT(grad.abs().sum().item<double>(), 0) << name;
    EXPECT_TRUE(at::equal(grad, grads[1].at(name))) << name;
  }
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
  EXPECT_NE(contract.Find("cross_attention/0"), nullptr);
  EXPECT_NE(contract.Find("cross_attention/1"), nullptr);
  EXPECT_EQ(contract.Find("cross_attention/2"), nullptr);
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
  config.set_slot_copies(0);
  const absl::Status status = ValidateCrossFusion(config);
  for (const char* field :
       {"heads", "layers", "text", "dropout", "slot_copies"})
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
