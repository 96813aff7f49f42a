#include "tasks/grounding/grounding.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/forward/providers.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/layers.h"
#include "core/plugin/encoder.h"
#include "core/util/file.h"
#include "tasks/grounding/boxes.h"
#include "tasks/grounding/grad_cam.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 4, kHeads = 2, kHeight = 2, kWidth = 3;

// Two layers of cross-attention, between which the tokens of a text are mixed.
// A number can be added to the attention, as far as finite differences go.
class TinyFusion : public FusionEncoder {
 public:
  TinyFusion() {
    for (int i = 0; i < 2; ++i) {
      for (const char* name : {"q", "k", "v"}) {
        weights.push_back(register_parameter(
            absl::StrCat(name, i), at::randn({kDim, kDim}, at::kDouble)));
      }
    }
  }

  Tokens Fuse(const Tokens& text, absl::Span<const Tokens> images,
              const at::Tensor& image_index) override {
    ++plain;
    return Run(text, images, image_index, -1).tokens;
  }
  FusedWithMaps FuseWithMaps(const Tokens& text,
                             absl::Span<const Tokens> images,
                             const at::Tensor& image_index,
                             int64_t layer) override {
    return Run(text, images, image_index, layer);
  }
  int64_t dim() const override { return kDim; }

  std::vector<at::Tensor> weights;
  at::Tensor delta;  // [P, heads, L, N], added to layer `delta_layer`'s map.
  int64_t delta_layer = -1;
  int plain = 0;

 private:
  static at::Tensor Heads(const at::Tensor& x) {
    return x.unflatten(-1, {kHeads, kDim / kHeads}).transpose(1, 2);
  }
  FusedWithMaps Run(const Tokens& text, absl::Span<const Tokens> images,
                    const at::Tensor& image_index, int64_t layer) {
    FusedWithMaps out;
    const at::Tensor image = images[0].values.index_select(0, image_index);
    const at::Tensor real = text.mask.unsqueeze(-1).to(at::kDouble);
    at::Tensor x = text.values;
    for (int64_t i = 0; i < 2; ++i) {
      const at::Tensor q = Heads(at::matmul(x, weights[3 * i]));
      const at::Tensor k = Heads(at::matmul(image, weights[3 * i + 1]));
      const at::Tensor v = Heads(at::matmul(image, weights[3 * i + 2]));
      at::Tensor map = at::softmax(at::matmul(q, k.transpose(-2, -1)), -1);
      if (i == delta_layer) map = map + delta;
      if (i == layer) {
        if (!map.requires_grad() && c10::GradMode::is_enabled())
          map.requires_grad_(true);
        for (size_t slot = 0; slot < images.size(); ++slot)
          out.maps.push_back(map);
      }
      x = x + at::matmul(map, v).transpose(1, 2).flatten(2);
      x = x + ((x * real).sum(1, true) / real.sum(1, true)).tanh();
    }
    out.tokens = text;
    out.tokens.values = x;
    return out;
  }
};

// A grid of 2 x 3 tokens of an 8 x 8 image, and their mean as [CLS].
Tokens Visual(const at::Tensor& images, bool has_cls) {
  Tokens tokens;
  const at::Tensor patches =
      at::adaptive_avg_pool2d(images.select(1, 0), {kHeight, kWidth})
          .flatten(2)
          .transpose(1, 2);
  tokens.values = at::cat({patches, patches.sum(2, true).sin()}, 2);
  if (has_cls)
    tokens.values = at::cat({tokens.values.mean(1, true), tokens.values}, 1);
  tokens.grid = {kHeight, kWidth};
  tokens.has_cls = has_cls;
  return tokens;
}

class GroundingTest : public testing::Test {
 protected:
  GroundingTest()
      : fuser_((torch::manual_seed(5), std::make_shared<TinyFusion>())),
        fusion_(fuser_, "text", "visual"),
        table_(at::randn({20, kDim}, at::kDouble)),
        head_(at::randn({2, kDim}, at::kDouble)) {}

  // Wires `providers` as an experiment would.
  void Wire(FakeEvalContext& context, bool has_cls = true) {
    context.Provide("visual", [has_cls](const ViewKey&, Forward& f) {
      return std::any(Visual(f.batch().images, has_cls));
    });
    context.Provide("text", [this](const ViewKey&, Forward& f) {
      Tokens tokens;
      tokens.values = at::embedding(table_, f.batch().text_ids);
      tokens.mask = f.batch().text_mask;
      return std::any(tokens);
    });
    context.Provide("itm", [this](const ViewKey&, Forward& f) {
      const Tokens& fused = f.Get<Tokens>(FusedKey("fusion", kFused));
      return std::any(at::matmul(fused.values.select(1, 0), head_.t()).tanh());
    });
    context.providers["fusion"] = &fusion_;
  }

  static Batch Texts(int64_t images, uint64_t seed = 3) {
    TestBatchOptions options;
    options.images = images;
    options.texts_per_image = 2;
    options.seed = seed;
    Batch batch = TestBatch(options);
    for (size_t t = 0; t < batch.texts.size(); ++t) {
      batch.texts[t].id = absl::StrCat(t);
      batch.texts[t].text = absl::StrCat("the thing no. ", t);
    }
    return batch;
  }

  // Rows of a batch of two texts an image.
  static Batch Part(const Batch& batch, int64_t first, int64_t images) {
    Batch part = batch;
    part.images = batch.images.narrow(0, first, images);
    part.text_ids = batch.text_ids.narrow(0, 2 * first, 2 * images);
    part.text_mask = batch.text_mask.narrow(0, 2 * first, 2 * images);
    part.text_to_image =
        batch.text_to_image.narrow(0, 2 * first, 2 * images) - first;
    part.texts.assign(batch.texts.begin() + 2 * first,
                      batch.texts.begin() + 2 * (first + images));
    return part;
  }

  static std::string Reference(int64_t id, const std::string& rest = "") {
    // Proposals are the columns of the grid and the whole image; the true box
    // is the middle column.
    return absl::StrCat(
        "{\"ref_id\": ", id,
        ", \"width\": 30, \"height\": 20, \"box\": [10, 0, 10, 20], "
        "\"proposals\": [[0, 0, 10, 20], [10, 0, 10, 20], [20, 0, 10, 20]]",
        rest, "}");
  }
  static std::string Write(FakeEvalContext& context,
                           const std::vector<std::string>& references) {
    const std::string path = JoinPath(context.folder, "boxes.json");
    EXPECT_TRUE(
        AtomicWriteFile(
            path, absl::StrCat("[", absl::StrJoin(references, ",\n"), "]\n"))
            .ok());
    return path;
  }
  static absl::StatusOr<TaskResult> Evaluate(FakeEvalContext& context,
                                             const GroundingConfig& config) {
    PluginContext plugin;
    plugin.instance = "grounding";
    auto task = MakeGrounding(config, plugin);
    if (!task.ok()) return task.status();
    c10::NoGradGuard no_grad;  // As the trainer evaluates.
    auto result = (*task)->Evaluate(context);
    EXPECT_FALSE(c10::GradMode::is_enabled());
    return result;
  }
  static GroundingConfig Config(const std::string& boxes) {
    GroundingConfig config;
    config.set_boxes(boxes);
    config.set_layer(0);
    return config;
  }

  std::shared_ptr<TinyFusion> fuser_;
  FusionEncoderViews fusion_;
  at::Tensor table_, head_;
};

const GradCamViews kViews = {"fusion", "itm", "visual", "text", 0};

// The gradient by finite differences of the score, the rest by hand.
TEST_F(GroundingTest, TheMapEqualsAHandComputation) {
  const Batch batch = Texts(3);
  ASSERT_FALSE(batch.text_mask.all().item<bool>());
  for (const bool has_cls : {true, false}) {
    for (const int64_t layer : {0, 1}) {
      FakeEvalContext context;
      Wire(context, has_cls);
      c10::NoGradGuard no_grad;
      GradCamViews views = kViews;
      views.layer = layer;
      auto forward = context.MakeForward(batch);
      const auto cam = GradCam(views, *forward);
      ASSERT_TRUE(cam.ok()) << cam.status();
      ASSERT_EQ(cam->sizes().vec(), (std::vector<int64_t>{6, kHeight, kWidth}));

      forward = context.MakeForward(batch);
      const at::Tensor map = forward->Get<std::vector<at::Tensor>>(
          FusedKey("fusion", CrossAttentionView(layer)))[0];
      const int64_t length = map.size(2), first = has_cls ? 1 : 0;
      at::Tensor expected = at::zeros({6, kHeight * kWidth}, at::kDouble);
      const auto score = [&](const at::Tensor& delta) {
        fuser_->delta = delta;
        fuser_->delta_layer = layer;
        const auto moved = context.MakeForward(batch);
        const at::Tensor logits =
            moved->Get<at::Tensor>(FusedKey("itm", kMatchLogits)).select(1, 1);
        fuser_->delta_layer = -1;
        return logits.clone();
      };
      const double step = 1e-5;
      for (int64_t h = 0; h < kHeads; ++h) {
        for (int64_t l = 0; l < length; ++l) {
          for (int64_t n = first; n < map.size(3); ++n) {
            // All texts at once: none sees another's attention.
            at::Tensor delta = at::zeros_like(map);
            delta.select(1, h).select(1, l).select(1, n).fill_(step);
            const at::Tensor gradient =
                (score(delta) - score(-delta)) / (2 * step);
            const at::Tensor real =
                batch.text_mask.select(1, l).to(at::kDouble);
            expected.select(1, n - first) +=
                gradient.clamp_min(0) * real *
                map.select(1, h).select(1, l).select(1, n);
          }
        }
      }
      expected /= static_cast<double>(kHeads * length);
      EXPECT_GT(expected.max().item<double>(), 1e-4);
      EXPECT_LT((cam->flatten(1) - expected).abs().max().item<double>(), 1e-9)
          << "layer " << layer;
    }
  }
}

TEST_F(GroundingTest, GradientsStayWithTheTask) {
  const Batch batch = Texts(2);
  FakeEvalContext context({batch});
  Wire(context);
  std::vector<std::string> references;
  for (int64_t t = 0; t < 4; ++t) references.push_back(Reference(t));
  const std::string boxes = Write(context, references);
  ASSERT_TRUE(Evaluate(context, Config(boxes)).ok());
  EXPECT_EQ(fuser_->plain, 0);  // The tokens came with the map.
  for (const at::Tensor& p : fuser_->parameters())
    EXPECT_FALSE(p.grad().defined());
  // A frozen model has a map too.
  for (at::Tensor& p : fuser_->parameters()) p.requires_grad_(false);
  EXPECT_TRUE(Evaluate(context, Config(boxes)).ok());
}

TEST_F(GroundingTest, TheBatchSizeDoesNotMatter) {
  const Batch batch = Texts(7);
  std::vector<std::string> references;
  for (int64_t t = 0; t < 14; ++t)
    references.push_back(
        Reference(t, t % 2 == 0 ? ", \"split\": \"testA\"" : ""));
  std::vector<TaskResult> results;
  std::vector<at::Tensor> scores;
  for (const int64_t size : {7, 3, 1}) {
    FakeEvalContext context;
    Wire(context);
    for (int64_t i = 0; i < 7; i += size)
      context.streams[""].push_back(Part(batch, i, std::min(size, 7 - i)));
    const auto result = Evaluate(context, Config(Write(context, references)));
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back(*result);
    std::vector<at::Tensor> cams;
    c10::NoGradGuard no_grad;
    for (const Batch& part : context.streams[""])
      cams.push_back(*GradCam(kViews, *context.MakeForward(part)));
    scores.push_back(at::cat(cams));
    ASSERT_EQ(result->metrics.size(), results[0].metrics.size());
    for (size_t m = 0; m < result->metrics.size(); ++m) {
      EXPECT_EQ(result->metrics[m].name, results[0].metrics[m].name);
      EXPECT_EQ(result->metrics[m].value, results[0].metrics[m].value);
    }
    EXPECT_TRUE(at::allclose(scores.back(), scores[0], 1e-12, 1e-14));
  }
  // The test's model finds something and misses something.
  const double hits = MetricOf(results[0], "hit@0.5").value;
  EXPECT_GT(hits, 0);
  EXPECT_LT(hits, 100);
  EXPECT_NEAR(MetricOf(results[0], "hit@0.5").chance, 100.0 / 3, 1e-9);
  EXPECT_NEAR(MetricOf(results[0], "pointing").chance, 100.0 / 3, 1e-9);
  EXPECT_EQ(MetricOf(results[0], "baseline: centre point").value, 100);
  EXPECT_EQ(MetricOf(results[0], "baseline: largest proposal").value, 0);
  EXPECT_GE(MetricOf(results[0], "testA pointing").value, 0);
  EXPECT_THROW(MetricOf(results[0], "testB hit@0.5"), std::out_of_range);
}

TEST_F(GroundingTest, WhatIsLeftOutIsCounted) {
  const Batch batch = Texts(2);
  FakeEvalContext context({batch});
  context.skipped_samples = 5;
  Wire(context);
  const std::string boxes =
      Write(context, {Reference(0), Reference(77),
                      "{\"ref_id\": \"2\", \"width\": 30, \"height\": 20, "
                      "\"box\": [25.5, 0, 10, 20], \"proposals\": []}"});
  const auto result = Evaluate(context, Config(boxes));
  ASSERT_TRUE(result.ok()) << result.status();
  for (const char* part :
       {"2 texts", "2 texts have no boxes and are left out (\"1\", \"3\")",
        "1 texts have no proposals", "1 boxes of the file reach out",
        "5 bad samples"})
    EXPECT_TRUE(absl::StrContains(result->note, part)) << result->note;
  EXPECT_LE(MetricOf(*result, "hit@0.5").value, 50);

  const std::string others = Write(context, {Reference(77)});
  const absl::Status none = Evaluate(context, Config(others)).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(none.message(), "\"0\", \"1\", \"2\"")) << none;
}

TEST_F(GroundingTest, MapsWithoutWeightAreMisses) {
  const Batch batch = Texts(1);
  FakeEvalContext context({batch});
  Wire(context);
  context.Provide("itm", [](const ViewKey&, Forward& f) {  // Any map is worse.
    const at::Tensor& map = f.Get<std::vector<at::Tensor>>(
        FusedKey("fusion", CrossAttentionView(0)))[0];
    const at::Tensor sum = map.sum({1, 2, 3});
    return std::any(at::stack({sum, -sum}, 1));
  });
  const auto result =
      Evaluate(context, Config(Write(context, {Reference(0), Reference(1)})));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(MetricOf(*result, "hit@0.5").value, 0);
  EXPECT_TRUE(absl::StrContains(result->note, "2 maps have no weight"));
}

TEST_F(GroundingTest, WrongModelsAreRefused) {
  const Batch batch = Texts(1);
  FakeEvalContext context({batch});
  const std::string boxes = Write(context, {Reference(0)});
  const auto refused = [&](const char* reason) {
    const absl::Status status = Evaluate(context, Config(boxes)).status();
    EXPECT_TRUE(absl::StrContains(status.message(), reason)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "grounding")) << status;
  };
  Wire(context);
  context.Provide("itm", [](const ViewKey&, Forward&) {
    return std::any(at::ones({2, 2}, at::kDouble));
  });
  refused("scores no tokens of \"fusion\"");
  Wire(context);
  context.Provide("itm", [](const ViewKey&, Forward& f) {
    return std::any(f.Get<Tokens>(FusedKey("fusion", kFused))
                        .values.select(1, 0)
                        .narrow(1, 0, 2) *
                    std::nan(""));
  });
  refused("not finite");
  Wire(context);
  context.Provide("visual", [](const ViewKey&, Forward& f) {
    Tokens tokens = Visual(f.batch().images, true);
    tokens.grid = {};
    return std::any(tokens);
  });
  refused("no grid");
  Wire(context);
  context.streams[""][0].images =
      batch.images.expand({-1, 2, -1, -1, -1}).contiguous();
  refused("2 image slots");
}

TEST_F(GroundingTest, PicturesShowBoxesAndMap) {
  Batch batch = Texts(2);
  batch.texts[1].text = "the cat/dog, left?";
  FakeEvalContext context({batch});
  Wire(context);
  std::vector<std::string> references;
  for (int64_t t = 0; t < 4; ++t) {
    // Off the proposals' edges, where the chosen one is drawn over it.
    references.push_back(absl::StrReplaceAll(
        Reference(t),
        {{"\"box\": [10, 0, 10, 20]", "\"box\": [12, 2, 6, 15]"}}));
  }
  GroundingConfig config = Config(Write(context, references));
  config.set_heat_maps(2);
  const auto result = Evaluate(context, config);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->files.size(), 3u);
  EXPECT_EQ(BaseName(result->files[0]), "grounding_result.json");
  EXPECT_EQ(BaseName(result->files[2]),
            "grounding_heat_map_2_the_cat_dog__left_.png");
  const cv::Mat picture = cv::imread(result->files[1]);
  // 30 x 20 pixels, magnified until the shorter side has 256, and the text.
  ASSERT_EQ(picture.cols, 384);
  ASSERT_EQ(picture.rows, 256 + 24);
  // The true box's left side, 12 of 30 pixels from the left.
  const cv::Vec3b side = picture.at<cv::Vec3b>(128, 154);
  EXPECT_GT(side[1], 150);
  EXPECT_LT(side[0], 50);
  EXPECT_LT(side[2], 50);
  const cv::Mat strip = picture.rowRange(256, 280);
  double darkest = 255;
  cv::minMaxLoc(strip.reshape(1), &darkest);
  EXPECT_LT(darkest, 50) << "no text";
}

TEST(Boxes, AreChecked) {
  FakeEvalContext context;
  const std::string path = JoinPath(context.folder, "boxes.json");
  const auto refused = [&](const std::string& text, const std::string& reason) {
    EXPECT_TRUE(AtomicWriteFile(path, text).ok());
    const absl::Status status = ReadBoxes(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(absl::StrContains(status.message(), reason)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), "boxes.json")) << status;
  };
  const auto record = [](const std::string& box, const std::string& proposals,
                         const std::string& size =
                             "\"width\": 30, \"height\": 20") {
    return absl::StrCat("[{\"ref_id\": 3, ", size, ", \"box\": ", box,
                        ", \"proposals\": ", proposals, "}]");
  };
  refused("[", "expected a JSON list");
  refused("{\"17\": [[1, 2, 3, 4]]}", "looks like detections by image");
  refused("{\"info\": {}}", "got no list");
  refused("[]", "empty list");
  refused("[3]", "record 0: not an object");
  refused("[{}]", "\"ref_id\": got nothing");
  refused("[{\"ref_id\": 1.5}]", "\"ref_id\": got 1.5");
  refused("[{\"ref_id\": 3}]", "\"width\": got nothing");
  refused(record("[1, 2, 3, 4]", "[]", "\"width\": 0, \"height\": 20"),
          "\"width\": got 0");
  refused(record("[1, 2, 3]", "[]"), "\"box\": got [1,2,3]");
  refused(record("[1, 2, 3, \"4\"]", "[]"), "record 0: \"box\"");
  refused(record("[1, 2, 0, 4]", "[]"), "above 0");
  refused(record("[1, 2, 3, -4]", "[]"), "above 0");
  refused(record("[1, 2, 3, 1e300]", "[]"), "\"box\"");
  refused(record("[30, 2, 3, 4]", "[]"), "in the image of 30 x 20 pixels");
  refused(record("[-3, 2, 3, 4]", "[]"), "in the image of 30 x 20 pixels");
  refused(record("[1, 2, 3, 4]", "{}"), "\"proposals\": got {}");
  refused(record("[1, 2, 3, 4]", "[[1, 2, 3, 4], [1, 2, 3]]"),
          "[1,2,3] at place 1");
  refused(
      "[{\"ref_id\": 3, \"width\": 9, \"height\": 9, \"box\": [1, 2, 3, 4], "
      "\"proposals\": [], \"split\": 5}]",
      "\"split\": got 5");
  const std::string one = record("[1, 2, 3, 4]", "[]");
  refused(absl::StrCat("[", one.substr(1, one.size() - 2), ",",
                       one.substr(1, one.size() - 2), "]"),
          "record 1: \"ref_id\": got 3 a second time");
  EXPECT_EQ(ReadBoxes(path + "x").status().code(), absl::StatusCode::kNotFound);

  ASSERT_TRUE(AtomicWriteFile(path, record("[28.5, 2, 3, 4]",
                                           "[[-2, 0, 4, 4], [0.5, 0, 4, 4]]"))
                  .ok());
  const auto good = ReadBoxes(path);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->reaching_out, 2);
  const Reference& reference = good->references.at("3");
  EXPECT_EQ(reference.proposals.size(), 2u);
  EXPECT_EQ(reference.proposals[0].x, -2);
  EXPECT_EQ(reference.box.width, 3);
  EXPECT_NEAR(CoveredShare(reference), 1.5 * 4 / 600, 1e-12);
}

TEST(Boxes, OverlapIsCountedInPixels) {
  EXPECT_EQ(IntersectionOverUnion({0, 0, 4, 4}, {0, 0, 4, 4}), 1);
  EXPECT_EQ(IntersectionOverUnion({0, 0, 4, 4}, {2, 0, 4, 4}), 8.0 / 24);
  EXPECT_EQ(IntersectionOverUnion({0, 0, 4, 4}, {3, 0, 4, 4}),
            0);  // One column.
  EXPECT_EQ(IntersectionOverUnion({0, 0, 1, 4}, {0, 0, 1, 4}), 0);
  EXPECT_EQ(IntersectionOverUnion({0, 0, 4, 4}, {9, 9, 4, 4}), 0);
}

TEST(GroundingConfigs, ErrorsAreReported) {
  GroundingConfig config;
  EXPECT_FALSE(ValidateGrounding(config).ok());
  config.set_boxes("b.json");
  EXPECT_TRUE(ValidateGrounding(config).ok());
  config.clear_boxes();
  config.set_matching("");
  config.set_layer(-1);
  config.set_min_iou(0);
  config.set_area_exponent(std::nan(""));
  config.set_heat_maps(-1);
  const absl::Status status = ValidateGrounding(config);
  for (const char* field :
       {"boxes", "matching", "layer", "min_iou", "area_exponent", "heat_maps"})
    EXPECT_TRUE(absl::StrContains(status.message(), field)) << field;
}

TEST(GroundingConfigs, TheLayerIsAView) {
  GroundingConfig config;
  config.set_layer(7);
  config.set_fusion("f");
  const Contract contract = GroundingContract("g", config, ContractBook());
  EXPECT_EQ(contract.needs[0].instance, "f");
  EXPECT_EQ(contract.needs[0].view, "cross_attention/7");
  ASSERT_EQ(contract.files.size(), 1u);
  EXPECT_EQ(contract.files[0].field, "boxes");
}

}  // namespace
}  // namespace semvq
