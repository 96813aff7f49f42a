#include "core/forward/providers.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/layers.h"
#include "core/nn/testing.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

constexpr int64_t kEncoderDim = 5, kCodeDim = 3, kCodes = 6;

// 4x4 patches by one matrix, with or without [CLS].
class TinyEncoder : public ImageEncoder {
 public:
  explicit TinyEncoder(bool has_cls = true) : has_cls_(has_cls) {
    weight = register_parameter("weight",
                                at::randn({kEncoderDim, 48}, at::kDouble) / 7);
    hidden =
        register_parameter("hidden", at::randn({kEncoderDim}, at::kDouble));
    cls = register_parameter("cls", at::randn({kEncoderDim}, at::kDouble));
  }
  Tokens Encode(const ImageInput& input) override {
    ++calls;
    const int64_t b = input.pixels.size(0);
    at::Tensor patches = LinearOp(input.pixels.unfold(2, 4, 4)
                                      .unfold(3, 4, 4)
                                      .permute({0, 2, 3, 1, 4, 5})
                                      .reshape({b, -1, 48}),
                                  weight, {});
    if (input.patch_mask.defined()) {
      patches = at::where(input.patch_mask.unsqueeze(-1), hidden, patches);
    }
    Tokens out;
    out.has_cls = has_cls_;
    out.grid = {input.pixels.size(2) / 4, input.pixels.size(3) / 4};
    out.values = has_cls_
                     ? at::cat({cls.expand({b, 1, kEncoderDim}), patches}, 1)
                     : patches;
    if (mask.defined()) out.mask = mask;
    return out;
  }
  int64_t dim() const override { return kEncoderDim; }

  at::Tensor weight, hidden, cls;
  at::Tensor mask;  // Put into the tokens when defined.
  int calls = 0;

 private:
  bool has_cls_;
};

// Nearest code with a straight-through gradient.
class TinyQuantizer : public Quantizer {
 public:
  TinyQuantizer() {
    codebook =
        register_buffer("codebook", at::randn({kCodes, kCodeDim}, at::kDouble));
  }
  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    contexts.push_back(context);
    Quantized out;
    out.codes = at::cdist(features.detach(), codebook).argmin(-1, true);
    out.vectors = features + (Lookup(out.codes) - features).detach();
    return out;
  }
  at::Tensor Lookup(const at::Tensor& codes) override {
    return codebook.index_select(0, codes.flatten())
        .view({codes.size(0), codes.size(1), kCodeDim});
  }
  CodebookInfo info() const override { return {{kCodes}, kCodeDim}; }

  at::Tensor codebook;
  std::vector<QuantizeContext> contexts;
};

class TinyTextEncoder : public TextEncoder {
 public:
  TinyTextEncoder() {
    table =
        register_parameter("table", at::randn({20, kEncoderDim}, at::kDouble));
  }
  Tokens Encode(const TextInput& input) override {
    ++calls;
    Tokens out;
    out.values = at::embedding(table, input.ids);
    out.mask = input.mask;
    return out;
  }
  int64_t dim() const override { return kEncoderDim; }

  at::Tensor table;
  int calls = 0;
};

// A pair's text plus the means of its images, slots weighted 1, 10.
class TinyFusion : public FusionEncoder {
 public:
  Tokens Fuse(const Tokens& text, absl::Span<const Tokens> images,
              const at::Tensor& image_index) override {
    Tokens out = text;
    double weight = 1;
    for (const Tokens& image : images) {
      const at::Tensor mean = image.values.mean(1, true);
      out.values =
          out.values + weight * (image_index.defined()
                                     ? mean.index_select(0, image_index)
                                     : mean);
      weight *= 10;
    }
    out.values = out.values * text.mask.unsqueeze(-1);
    ++calls;
    return out;
  }
  // A map weighs the text it belongs to.
  FusedWithMaps FuseWithMaps(const Tokens& text,
                             absl::Span<const Tokens> images,
                             const at::Tensor& image_index,
                             int64_t layer) override {
    FusedWithMaps out;
    out.tokens = Fuse(text, images, image_index);
    for (const Tokens& image : images) {
      out.maps.push_back(at::full({text.values.size(0), 1, text.values.size(1),
                                   image.values.size(1)},
                                  static_cast<double>(layer + 2), at::kDouble)
                             .requires_grad_(true));
      out.tokens.values = out.tokens.values * out.maps.back().mean() /
                          static_cast<double>(layer + 2);
    }
    return out;
  }
  int64_t dim() const override { return kEncoderDim; }

  int calls = 0;
};

at::Tensor Gradient(const at::Tensor& loss, const at::Tensor& of) {
  return torch::autograd::grad({loss}, {of}, {}, /*retain_graph=*/true,
                               /*create_graph=*/false,
                               /*allow_unused=*/true)[0];
}

// Image encoder, quantizer and visual tokens wired as in an experiment.
struct Model {
  explicit Model(VisualTokens::Mode mode, bool has_cls = true,
                 bool training = true)
      : encoder(std::make_shared<TinyEncoder>(has_cls)),
        quantizer(std::make_shared<TinyQuantizer>()),
        image(encoder),
        codebook(quantizer, Config(), kEncoderDim),
        visual(Switch(mode), kEncoderDim),
        forward(TestBatch(), /*with_teacher=*/true, {training, 7, 3}) {
    codebook.to(at::kDouble);
    visual.to(at::kDouble);
    for (at::Tensor p : codebook.parameters()) p.detach().normal_();
    for (at::Tensor p : visual.parameters()) p.detach().normal_();
    forward.student = {
        {"image", &image}, {"codebook", &codebook}, {"visual", &visual}};
    forward.teacher = forward.student;
  }
  static QuantizerConfig Config() {
    QuantizerConfig config;
    config.set_dim(kCodeDim);
    return config;
  }
  static VisualTokens Switch(VisualTokens::Mode mode) {
    VisualTokens config;
    config.set_mode(mode);
    return config;
  }
  const Tokens& tokens() {
    return forward->Get<Tokens>(ImageKey("image", kTokens));
  }
  const Tokens& visual_tokens() {
    return forward->Get<Tokens>(ImageKey("visual", kTokens));
  }
  const QuantizedTokens& quantized() {
    return forward->Get<QuantizedTokens>(ImageKey("codebook", kQuantized));
  }
  // A loss on the patches of the visual tokens, not on [CLS].
  at::Tensor Loss() {
    const at::Tensor patches = PatchTokens(visual_tokens());
    torch::manual_seed(5);
    return (patches * at::randn_like(patches)).sum();
  }

  std::shared_ptr<TinyEncoder> encoder;
  std::shared_ptr<TinyQuantizer> quantizer;
  ImageEncoderViews image;
  QuantizerViews codebook;
  VisualTokensViews visual;
  TestForward forward;
};

TEST(ImageEncoderViewsTest, HidesTheMaskOfTheVariant) {
  Model model(VisualTokens::CONTINUOUS);
  ImageMask mask;
  mask.mask = torch::tensor({1, 0, 0, 1}).to(at::kBool).expand({3, 4});
  model.forward->Set(ImageKey("mim", kImageMask), mask);
  Variant masked;
  masked.image_mask = "mim";
  const at::Tensor hidden = PatchTokens(
      model.forward->Get<Tokens>(ImageKey("image", kTokens, masked)));
  const at::Tensor clean = PatchTokens(model.tokens());
  EXPECT_TRUE(at::equal(hidden.select(1, 1), clean.select(1, 1)));
  EXPECT_TRUE(at::equal(hidden.select(1, 3),
                        model.encoder->hidden.expand({3, kEncoderDim})));
  EXPECT_EQ(model.encoder->calls, 2);
  EXPECT_THROW(model.forward->Get<Tokens>(ImageKey("image", kFused)),
               c10::Error);
}

TEST(TextEncoderViewsTest, ReadsTheIdsOfTheTextMask) {
  auto encoder = std::make_shared<TinyTextEncoder>();
  TextEncoderViews views(encoder);
  TestForward forward(TestBatch());
  forward.student["text"] = &views;
  TextMask mask;
  mask.ids = forward.batch().text_ids.clone().fill_(4);
  forward->Set(TextKey("mlm", kTextMask), mask);
  Variant masked;
  masked.text_mask = "mlm";
  const Tokens& tokens = forward->Get<Tokens>(TextKey("text", kTokens, masked));
  EXPECT_TRUE(at::equal(tokens.values[1][2], encoder->table[4]));
  EXPECT_TRUE(at::equal(tokens.mask, forward.batch().text_mask));
  const Tokens& clean = forward->Get<Tokens>(TextKey("text", kTokens));
  EXPECT_TRUE(at::equal(clean.values[1][0], encoder->table[2]));
  EXPECT_THROW(forward->Get<Tokens>(TextKey("text", kFused)), c10::Error);
}

// Baselines: nothing of the input is left.
TEST(BlankInputTest, EveryImageAndEveryTextIsTheSame) {
  TestForward forward(TestBatch());
  ImageEncoderViews image(std::make_shared<TinyEncoder>(true), true);
  TextEncoderViews text(std::make_shared<TinyTextEncoder>(), true);
  forward.student = {{"image", &image}, {"text", &text}};
  const at::Tensor images =
      forward->Get<Tokens>(ImageKey("image", kTokens)).values;
  EXPECT_TRUE(at::equal(images[0], images[1]));
  EXPECT_TRUE(at::equal(images[0], images[2]));
  const Tokens& words = forward->Get<Tokens>(TextKey("text", kTokens));
  EXPECT_TRUE(at::equal(words.values[0], words.values[1]));
  EXPECT_TRUE(at::equal(words.values[0][0], words.values[0][3]));
  EXPECT_TRUE(
      at::equal(words.mask, at::arange(6).eq(0).unsqueeze(0).expand({3, 6})));
  // The batch itself is as it was.
  EXPECT_FALSE(
      at::equal(forward.batch().text_ids[0], forward.batch().text_ids[1]));
  EXPECT_GT(forward.batch().images.abs().max().item<double>(), 0);
}

TEST(QuantizerViewsTest, QuantisesPatchesOnlyAndProjectsBack) {
  for (const bool has_cls : {true, false}) {
    Model model(VisualTokens::QUANTIZED, has_cls);
    const QuantizedTokens& out = model.quantized();
    EXPECT_EQ(out.features.sizes(), (std::vector<int64_t>{3, 4, kCodeDim}));
    EXPECT_EQ(out.quantized.codes.sizes(), (std::vector<int64_t>{3, 4, 1}));
    const auto parameters = model.codebook.named_parameters();
    const at::Tensor by_hand = LinearOp(
        model.quantizer->Lookup(out.quantized.codes),
        parameters["project_out.weight"], parameters["project_out.bias"]);
    EXPECT_TRUE(at::allclose(out.tokens, by_hand));
    EXPECT_TRUE(at::allclose(
        out.features,
        LinearOp(PatchTokens(model.tokens()), parameters["project_in.weight"],
                 parameters["project_in.bias"])));
  }
}

TEST(QuantizerViewsTest, NormalisesWhenAskedTo) {
  QuantizerConfig config = Model::Config();
  config.set_l2_normalize(true);
  Model model(VisualTokens::QUANTIZED);
  QuantizerViews views(model.quantizer, config, kEncoderDim);
  views.to(at::kDouble);
  model.forward.student["codebook"] = &views;
  const at::Tensor norms = model.quantized().features.norm(2, -1);
  EXPECT_TRUE(at::allclose(norms, at::ones_like(norms)));
}

TEST(QuantizerViewsTest, HasNoProjectionWithoutADimension) {
  for (const int64_t dim : {int64_t{0}, kEncoderDim}) {
    QuantizerConfig config;
    config.set_dim(dim);
    QuantizerViews views(std::make_shared<TinyQuantizer>(), config,
                         kEncoderDim);
    EXPECT_TRUE(views.parameters().empty());
  }
}

// Statistics are gathered from what is trained on: once, and never from the
// teacher, masked images or evaluation.
TEST(QuantizerViewsTest, OnlyTheCleanViewOfATrainingBatchTrains) {
  Model model(VisualTokens::QUANTIZED);
  ImageMask mask;
  mask.mask = at::ones({3, 4}, at::kBool);
  model.forward->Set(ImageKey("mim", kImageMask), mask);
  Variant masked, teacher;
  masked.image_mask = "mim";
  teacher.teacher = true;
  model.quantized();
  model.quantized();
  model.forward->Get<QuantizedTokens>(ImageKey("codebook", kQuantized, masked));
  model.forward->Get<QuantizedTokens>(
      ImageKey("codebook", kQuantized, teacher));
  ASSERT_EQ(model.quantizer->contexts.size(), 3u);
  EXPECT_EQ(model.quantizer->contexts[0].mode, QuantizeMode::kTrain);
  EXPECT_EQ(model.quantizer->contexts[0].seed, 7u);
  EXPECT_EQ(model.quantizer->contexts[0].step, 3);
  // A key an image, the same for every variant.
  EXPECT_EQ(model.quantizer->contexts[0].draw_keys.size(), 3u);
  EXPECT_NE(model.quantizer->contexts[0].draw_keys[0],
            model.quantizer->contexts[0].draw_keys[1]);
  EXPECT_EQ(model.quantizer->contexts[0].draw_keys,
            model.quantizer->contexts[1].draw_keys);
  EXPECT_EQ(model.quantizer->contexts[1].mode, QuantizeMode::kAssignOnly);
  EXPECT_EQ(model.quantizer->contexts[2].mode, QuantizeMode::kAssignOnly);

  Model evaluated(VisualTokens::QUANTIZED, true, /*training=*/false);
  evaluated.quantized();
  EXPECT_EQ(evaluated.quantizer->contexts[0].mode, QuantizeMode::kAssignOnly);
}

TEST(QuantizerViewsTest, FreezesTheQuantizerAlone) {
  Model free(VisualTokens::QUANTIZED);
  free.quantized();
  EXPECT_FALSE(free.quantizer->contexts[0].frozen);
  Model model(VisualTokens::QUANTIZED);
  QuantizerConfig config = Model::Config();
  config.set_frozen(true);
  QuantizerViews views(model.quantizer, config, kEncoderDim);
  views.to(at::kDouble);
  views.ComputeView(ImageKey("codebook", kQuantized), *model.forward);
  EXPECT_TRUE(model.quantizer->contexts.back().frozen);
  EXPECT_EQ(model.quantizer->contexts.back().mode, QuantizeMode::kTrain);
  for (const auto& p : views.named_parameters()) {
    EXPECT_EQ(p.value().requires_grad(),
              p.key().find("quantizer.") == std::string::npos)
        << p.key();
  }
}

TEST(QuantizerViewsTest, PassesTheMaskOfThePatches) {
  Model model(VisualTokens::QUANTIZED);
  model.quantized();
  EXPECT_FALSE(model.quantizer->contexts[0].valid.defined());
  Model padded(VisualTokens::QUANTIZED);
  padded.encoder->mask =
      torch::tensor({1, 0, 1, 1, 0}).to(at::kBool).expand({3, 5});
  padded.quantized();
  EXPECT_TRUE(at::equal(padded.quantizer->contexts[0].valid[1],
                        torch::tensor({0, 1, 1, 0}).to(at::kBool)));
}

// How language reaches the codebook: a loss on what the fusion encoder reads
// reaches the features before quantisation, the projections and the encoder.
TEST(VisualTokensViewsTest, QuantizedPassesGradientsToThePreQuantiserFeatures) {
  Model model(VisualTokens::QUANTIZED);
  const Tokens& visual = model.visual_tokens();
  EXPECT_TRUE(at::allclose(PatchTokens(visual), model.quantized().tokens));
  EXPECT_TRUE(at::equal(visual.values.select(1, 0),
                        model.tokens().values.select(1, 0)));
  EXPECT_TRUE(visual.has_cls);
  EXPECT_EQ(visual.grid.height, 2);

  const at::Tensor loss = model.Loss();
  const at::Tensor at_patches = Gradient(loss, visual.values).narrow(1, 1, 4);
  const auto parameters = model.codebook.named_parameters();
  const at::Tensor out = parameters["project_out.weight"];  // [D, d]
  const at::Tensor in = parameters["project_in.weight"];    // [d, D]
  const at::Tensor at_features = Gradient(loss, model.quantized().features);
  ASSERT_TRUE(at_features.defined());
  EXPECT_TRUE(at::allclose(at_features, at::matmul(at_patches, out)));
  // Only through the codes: nothing goes round them.
  EXPECT_TRUE(
      at::allclose(Gradient(loss, model.tokens().values).narrow(1, 1, 4),
                   at::matmul(at::matmul(at_patches, out), in)));
  EXPECT_GT(Gradient(loss, in).abs().max().item<double>(), 1e-3);
  EXPECT_GT(Gradient(loss, model.encoder->weight).abs().max().item<double>(),
            1e-3);
}

TEST(VisualTokensViewsTest, QuantizedWorksWithoutCls) {
  Model model(VisualTokens::QUANTIZED, /*has_cls=*/false);
  EXPECT_TRUE(
      at::allclose(model.visual_tokens().values, model.quantized().tokens));
  EXPECT_FALSE(model.visual_tokens().has_cls);
}

TEST(VisualTokensViewsTest, ContinuousLeavesTheCodesAlone) {
  Model model(VisualTokens::CONTINUOUS);
  EXPECT_TRUE(at::equal(model.visual_tokens().values, model.tokens().values));
  const at::Tensor loss = model.Loss();
  EXPECT_TRUE(model.quantizer->contexts.empty());
  EXPECT_FALSE(model.forward->Has(ImageKey("codebook", kQuantized)));
  EXPECT_TRUE(model.visual.parameters().empty());
  for (const at::Tensor& p : model.codebook.parameters()) {
    EXPECT_FALSE(Gradient(loss, p).defined());
  }
  // Also where somebody else asked for the codes.
  EXPECT_FALSE(Gradient(loss, model.quantized().features).defined());
  EXPECT_GT(Gradient(loss, model.encoder->weight).abs().max().item<double>(),
            1e-3);
}

TEST(VisualTokensViewsTest, GatedMixesByChannelAndReachesBoth) {
  Model model(VisualTokens::GATED);
  const at::Tensor features = PatchTokens(model.tokens());
  const at::Tensor codes = model.quantized().tokens;
  const auto gate = model.visual.named_parameters();
  const at::Tensor share = at::sigmoid(LinearOp(
      at::cat({features, codes}, -1), gate["gate.weight"], gate["gate.bias"]));
  const at::Tensor mixed = (1 - share) * features + share * codes;
  EXPECT_TRUE(at::allclose(PatchTokens(model.visual_tokens()), mixed));
  EXPECT_TRUE(at::equal(model.visual_tokens().values.select(1, 0),
                        model.tokens().values.select(1, 0)));
  const at::Tensor loss = model.Loss();
  torch::manual_seed(5);  // The weights of Loss().
  const at::Tensor by_hand = (mixed * at::randn_like(mixed)).sum();
  for (const at::Tensor& t : {model.quantized().features, gate["gate.weight"],
                              model.encoder->weight}) {
    ASSERT_TRUE(Gradient(loss, t).defined());
    EXPECT_TRUE(at::allclose(Gradient(loss, t), Gradient(by_hand, t)));
    EXPECT_GT(Gradient(loss, t).abs().max().item<double>(), 1e-4);
  }
}

class FusionEncoderViewsTest : public testing::Test {
 protected:
  FusionEncoderViewsTest()
      : encoder(std::make_shared<TinyTextEncoder>()),
        text(encoder),
        fuser(std::make_shared<TinyFusion>()),
        fusion(fuser, "text", "visual"),
        visual([this](const ViewKey& key, Forward&) -> std::any {
          Tokens tokens;
          tokens.values = images[key.slot];
          return tokens;
        }) {
    images = at::randn({2, 3, 5, kEncoderDim}, at::kDouble);
  }
  // Three images with two texts each and so many slots.
  TestForward MakeForward(int64_t slots) {
    TestBatchOptions options;
    options.texts_per_image = 2;
    Batch batch = TestBatch(options);
    batch.images = batch.images.expand({-1, slots, -1, -1, -1});
    return TestForward(batch);
  }
  void Wire(TestForward& forward) {
    forward.student = {
        {"text", &text}, {"fusion", &fusion}, {"visual", &visual}};
  }
  // Text row t with image row i.
  at::Tensor Pair(TestForward& forward, int64_t t, int64_t i,
                  const at::Tensor& ids, double first, double second) {
    const at::Tensor words = at::embedding(encoder->table, ids[t]);
    const at::Tensor image = first * images[0][i].mean(0, true) +
                             second * images[1][i].mean(0, true);
    return (words + image) * forward.batch().text_mask[t].unsqueeze(-1);
  }

  std::shared_ptr<TinyTextEncoder> encoder;
  TextEncoderViews text;
  std::shared_ptr<TinyFusion> fuser;
  FusionEncoderViews fusion;
  at::Tensor images;  // [slots, B, N, D]
  FakeProvider visual;
};

TEST_F(FusionEncoderViewsTest, WithoutPairingEveryTextReadsItsOwnImage) {
  TestForward forward = MakeForward(1);
  Wire(forward);
  const Tokens& fused = forward->Get<Tokens>(FusedKey("fusion", kFused));
  ASSERT_EQ(fused.values.size(0), 6);
  for (int64_t t = 0; t < 6; ++t) {
    EXPECT_TRUE(
        at::allclose(fused.values[t],
                     Pair(forward, t, t / 2, forward.batch().text_ids, 1, 0)));
  }
  EXPECT_THROW(forward->Get<Tokens>(FusedKey("fusion", kTokens)), c10::Error);
}

TEST_F(FusionEncoderViewsTest, PairingEqualsGatheringByHand) {
  TestForward forward = MakeForward(2);
  Wire(forward);
  const std::vector<int64_t> texts = {0, 5, 5, 2, 1, 0, 4},
                             rows = {0, 2, 0, 1, 1, 0, 2};
  Pairing pairing{torch::tensor(texts), torch::tensor(rows)};
  forward->Set({"itm", kPairing, Variant{}, 0, ""}, pairing);
  TextMask mask;
  mask.ids = (forward.batch().text_ids + 1).clamp_max(19);
  forward->Set(TextKey("mlm", kTextMask), mask);

  Variant masked;
  masked.text_mask = "mlm";
  for (const bool hide : {false, true}) {
    const Tokens& fused = forward->Get<Tokens>(
        FusedKey("fusion", kFused, hide ? masked : Variant{}, "itm"));
    ASSERT_EQ(fused.values.size(0), 7);
    for (size_t p = 0; p < texts.size(); ++p) {
      const auto row = static_cast<int64_t>(p);
      EXPECT_TRUE(at::allclose(
          fused.values[row],
          Pair(forward, texts[p], rows[p],
               hide ? mask.ids : forward.batch().text_ids, 1, 10)));
      EXPECT_TRUE(
          at::equal(fused.mask[row], forward.batch().text_mask[texts[p]]));
    }
  }
  // The encoders ran once per batch (twice for the text: clean and masked), not
  // once per pair; the text mask is none of the images' business.
  EXPECT_EQ(encoder->calls, 2);
  EXPECT_EQ(visual.asked.size(), 2u);
}

TEST_F(FusionEncoderViewsTest, OneSlotReadsThatImageOnly) {
  TestForward forward = MakeForward(2);
  Wire(forward);
  ViewKey key = FusedKey("fusion", kFused);
  key.slot = 1;
  const Tokens& fused = forward->Get<Tokens>(key);
  EXPECT_TRUE(at::allclose(
      fused.values[3], Pair(forward, 3, 1, forward.batch().text_ids, 0, 1)));
  EXPECT_EQ(visual.asked.size(), 1u);
}

// Texts with two images each, chosen from a batch of single ones.
TEST_F(FusionEncoderViewsTest, APairingChoosesTheImagesOfEverySlot) {
  TestForward forward = MakeForward(1);
  Wire(forward);
  images[1] = images[0];  // What Pair reads as the second slot.
  const std::vector<int64_t> texts = {0, 5, 5, 2}, first = {0, 2, 0, 1},
                             second = {1, 2, 1, 0};
  Pairing pairing{torch::tensor(texts), torch::tensor(first)};
  pairing.slots = {torch::tensor(first), torch::tensor(second)};
  forward->Set({"ta", kPairing, Variant{}, 0, ""}, pairing);
  const Tokens& fused =
      forward->Get<Tokens>(FusedKey("fusion", kFused, Variant{}, "ta"));
  ASSERT_EQ(fused.values.size(0), 4);
  for (size_t p = 0; p < texts.size(); ++p) {
    const at::Tensor& ids = forward.batch().text_ids;
    const at::Tensor expected = Pair(forward, texts[p], first[p], ids, 1, 0) +
                                Pair(forward, texts[p], second[p], ids, 10, 0) -
                                Pair(forward, texts[p], 0, ids, 0, 0);
    EXPECT_TRUE(at::allclose(fused.values[static_cast<int64_t>(p)], expected));
  }
  EXPECT_EQ(visual.asked.size(), 1u);  // The images are encoded once.
  ViewKey one = FusedKey("fusion", kFused, Variant{}, "ta");
  one.slot = 1;
  EXPECT_TRUE(
      at::allclose(forward->Get<Tokens>(one).values[0],
                   Pair(forward, 0, 1, forward.batch().text_ids, 1, 0)));
}

using Maps = std::vector<at::Tensor>;

TEST_F(FusionEncoderViewsTest, MapsComeWithTheTokensTheyBelongTo) {
  TestForward forward = MakeForward(2);
  Wire(forward);
  const Maps& maps =
      forward->Get<Maps>(FusedKey("fusion", CrossAttentionView(3)));
  ASSERT_EQ(maps.size(), 2u);  // One a slot.
  EXPECT_EQ(maps[1].sizes().vec(), (std::vector<int64_t>{6, 1, 6, 5}));
  EXPECT_EQ(maps[0][0][0][0][0].item<double>(), 5);  // Of the layer asked for.
  const Tokens& fused = forward->Get<Tokens>(FusedKey("fusion", kFused));
  EXPECT_EQ(fuser->calls, 1);
  EXPECT_GT(
      Gradient(fused.values.pow(2).sum(), maps[1]).abs().sum().item<double>(),
      0);
}

TEST_F(FusionEncoderViewsTest, MapsAskedForLateLeaveTheTokensAsTheyAre) {
  TestForward forward = MakeForward(1);
  Wire(forward);
  const at::Tensor before =
      forward->Get<Tokens>(FusedKey("fusion", kFused)).values;
  const Maps& maps =
      forward->Get<Maps>(FusedKey("fusion", CrossAttentionView(0)));
  const at::Tensor after =
      forward->Get<Tokens>(FusedKey("fusion", kFused)).values;
  EXPECT_TRUE(before.is_same(after));
  EXPECT_FALSE(Gradient(after.sum(), maps[0]).defined());
}

TEST_F(FusionEncoderViewsTest, MapsOfAPairingAndOfASlot) {
  TestForward forward = MakeForward(2);
  Wire(forward);
  forward->Set({"itm", kPairing, Variant{}, 0, ""},
               Pairing{torch::tensor({0, 5}, at::kLong),
                       torch::tensor({1, 1}, at::kLong)});
  ViewKey key = FusedKey("fusion", CrossAttentionView(0), Variant{}, "itm");
  key.slot = 1;
  ASSERT_EQ(forward->Get<Maps>(key).size(), 1u);
  EXPECT_EQ(forward->Get<Maps>(key)[0].size(0), 2);
  key.view = kFused;
  EXPECT_TRUE(forward->Has(key));
  key.slot = kAllSlots;
  EXPECT_FALSE(forward->Has(key));
  for (const char* wrong : {"cross_attention/", "cross_attention/-1",
                            "cross_attention/x", "cross_attention"}) {
    EXPECT_THROW(forward->Get<Maps>(FusedKey("fusion", wrong)), c10::Error);
  }
}

}  // namespace
}  // namespace semvq
