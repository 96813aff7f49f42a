#include "objectives/itc/itc.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/plugin/objective.h"
#include "objectives/itc/config.pb.h"

namespace semvq {
namespace {

constexpr int64_t kImageDim = 5, kTextDim = 4, kDim = 3;

ItcConfig SmallConfig() {
  ItcConfig config;
  config.set_dim(kDim);
  return config;
}

std::shared_ptr<Objective> Make(const ItcConfig& config) {
  torch::manual_seed(11);
  ContractBook book;
  Contract image, text;
  image.provides = {{kTokens, kImageDim}};
  text.provides = {{kTokens, kTextDim}};
  book.Add("image", image);
  book.Add("text", text);
  PluginContext context;
  context.instance = "itc";
  context.book = &book;
  auto made = MakeItc(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters()) {
    // Weights of a size that matters.
    if (p.dim() > 0) p.set_data(at::randn(p.sizes(), at::kDouble));
  }
  return *made;
}

// A batch of two texts an image in which images 0 and 2 are one.
Batch SharedIdBatch() {
  Batch batch = TestBatch({.images = 3, .texts_per_image = 2});
  batch.image_ids = {"a", "b", "a"};
  return batch;
}

struct Inputs {
  at::Tensor image = at::randn({3, 4, kImageDim}, at::kDouble);
  at::Tensor text = at::randn({6, 6, kTextDim}, at::kDouble);
};

void SetTokens(Forward& forward, const at::Tensor& image,
               const at::Tensor& text, bool has_cls = true) {
  Tokens tokens;
  tokens.values = image;
  tokens.has_cls = has_cls;
  forward.Set(ImageKey("image", kTokens), tokens);
  Tokens words;
  words.values = text;
  words.has_cls = true;
  forward.Set(TextKey("text", kTokens), words);
}

// Rows of `x` times weight plus bias, normalised; plain loops.
std::vector<std::vector<double>> Project(Objective& itc,
                                         const std::string& name,
                                         const at::Tensor& x) {
  const at::Tensor w = itc.named_parameters()[name + ".weight"];
  const at::Tensor b = itc.named_parameters()[name + ".bias"];
  std::vector<std::vector<double>> out;
  for (int64_t r = 0; r < x.size(0); ++r) {
    std::vector<double> row(w.size(0));
    double norm = 0;
    for (int64_t i = 0; i < w.size(0); ++i) {
      row[i] = b[i].item<double>();
      for (int64_t j = 0; j < w.size(1); ++j) {
        row[i] += w[i][j].item<double>() * x[r][j].item<double>();
      }
      norm += row[i] * row[i];
    }
    for (double& value : row) value /= std::sqrt(norm);
    out.push_back(row);
  }
  return out;
}

std::vector<std::vector<double>> Rows(const at::Tensor& x) {
  std::vector<std::vector<double>> out(x.size(0));
  for (int64_t r = 0; r < x.size(0); ++r) {
    for (int64_t i = 0; i < x.size(1); ++i) {
      out[r].push_back(x[r][i].item<double>());
    }
  }
  return out;
}

using Matrix = std::vector<std::vector<double>>;

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> Softmax(const Matrix& candidates,
                            const std::vector<double>& query, double t) {
  std::vector<double> p;
  double sum = 0;
  for (const auto& candidate : candidates) {
    p.push_back(std::exp(Dot(query, candidate) / t));
    sum += p.back();
  }
  for (double& value : p) value /= sum;
  return p;
}

// One direction of the loss. `soft_query`: the teacher's.
double Direction(const Matrix& query, const Matrix& soft_query,
                 const std::vector<std::string>& query_ids,
                 const Matrix& candidates,
                 const std::vector<std::string>& candidate_ids, double alpha,
                 double t) {
  double loss = 0;
  int rows = 0;
  for (size_t i = 0; i < query.size(); ++i) {
    const std::vector<double> p = Softmax(candidates, query[i], t);
    const std::vector<double> soft = Softmax(candidates, soft_query[i], t);
    double positives = 0;
    for (const auto& id : candidate_ids) positives += id == query_ids[i];
    if (positives == 0) continue;
    ++rows;
    for (size_t j = 0; j < p.size(); ++j) {
      const double hard = (candidate_ids[j] == query_ids[i]) / positives;
      loss -= ((1 - alpha) * hard + alpha * soft[j]) * std::log(p[j]);
    }
  }
  return loss / rows;
}

const std::vector<std::string> kImageIds = {"a", "b", "a"};
const std::vector<std::string> kTextIds = {"a", "a", "b", "b", "a", "a"};

TEST(ItcTest, LossSpreadsTargetsOverAllPositives) {
  auto itc = Make(SmallConfig());
  Inputs in;
  TestForward forward(SharedIdBatch());
  forward.student["itc"] = itc.get();
  SetTokens(*forward, in.image, in.text);
  const ObjectiveOutput out = itc->Compute(*forward);

  const Matrix image = Project(*itc, "image_proj", in.image.select(1, 0));
  const Matrix text = Project(*itc, "text_proj", in.text.select(1, 0));
  const double expected =
      0.5 * (Direction(image, image, kImageIds, text, kTextIds, 0, 0.07) +
             Direction(text, text, kTextIds, image, kImageIds, 0, 0.07));
  EXPECT_NEAR(SumOf(out.losses).item<double>(), expected, 1e-6 * expected);
  EXPECT_NEAR(ValueOf(out.metrics, "temperature"), 0.07, 1e-7);
  // The views are what others read.
  const at::Tensor similarity =
      forward->Get<at::Tensor>({"itc", kSimilarity, Variant{}, 0, ""});
  EXPECT_NEAR(similarity[1][4].item<double>() * 0.07, Dot(image[1], text[4]),
              1e-7);
}

TEST(ItcTest, MetricsCountBestCandidates) {
  auto itc = Make(SmallConfig());
  TestForward forward(TestBatch({.images = 3}));
  forward.student["itc"] = itc.get();
  const at::Tensor eye = at::eye(3, at::kDouble);
  forward->Set(ImageKey("itc", kImageEmbedding), eye);
  // Texts 0 and 1 point at their images, text 2 at image 1: image 2 then finds
  // no text better than another, and the first of equals is text 0.
  forward->Set(TextKey("itc", kTextEmbedding),
               eye.index_select(0, torch::tensor({0, 1, 1}, at::kLong)));
  const ObjectiveOutput out = itc->Compute(*forward);
  EXPECT_NEAR(ValueOf(out.metrics, "i2t_top1"), 2.0 / 3, 1e-6);
  EXPECT_NEAR(ValueOf(out.metrics, "t2i_top1"), 2.0 / 3, 1e-6);
}

at::Tensor UnitRows(int64_t rows) {
  const at::Tensor x = at::randn({rows, kDim}, at::kDouble);
  return x / x.norm(2, -1, true);
}

void SetEmbeddings(Forward& forward, const at::Tensor& image,
                   const at::Tensor& text, bool teacher = false) {
  Variant variant;
  variant.teacher = teacher;
  forward.Set(ImageKey("itc", kImageEmbedding, variant), image);
  forward.Set(TextKey("itc", kTextEmbedding, variant), text);
}

Matrix Join(Matrix a, const Matrix& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(ItcTest, TeacherAndQueueGiveCandidatesAndSoftTargets) {
  ItcConfig config = SmallConfig();
  config.set_queue_size(4);
  config.set_alpha_ramp_steps(10);
  auto itc = Make(config);
  torch::manual_seed(4);

  // A first batch of images "a", "b", "c" fills three of the four places.
  Batch first = TestBatch({.images = 3});
  first.image_ids = {"a", "b", "c"};
  TestForward fill(first);
  const at::Tensor old_image = UnitRows(3), old_text = UnitRows(3);
  SetEmbeddings(*fill, old_image, old_text);
  itc->Compute(*fill);
  itc->AfterStep();

  TestForward forward(SharedIdBatch(), /*with_teacher=*/true, {true, 7, 5});
  const at::Tensor image = UnitRows(3), text = UnitRows(6);
  const at::Tensor t_image = UnitRows(3), t_text = UnitRows(6);
  SetEmbeddings(*forward, image, text);
  SetEmbeddings(*forward, t_image, t_text, /*teacher=*/true);
  const ObjectiveOutput out = itc->Compute(*forward);

  const auto buffers = itc->named_buffers();
  const Matrix all_text = Join(Rows(t_text), Rows(buffers["text_queue"]));
  const Matrix all_image = Join(Rows(t_image), Rows(buffers["image_queue"]));
  std::vector<std::string> all_text_ids = kTextIds, all_image_ids = kImageIds;
  for (const char* id : {"a", "b", "c", "(not filled)"}) {
    all_text_ids.push_back(id);
    all_image_ids.push_back(id);
  }
  const double alpha = 0.2;  // Half of the ramp.
  const double t = itc->named_parameters()["temperature"].item<double>();
  const double expected =
      0.5 * (Direction(Rows(image), Rows(t_image), kImageIds, all_text,
                       all_text_ids, alpha, t) +
             Direction(Rows(text), Rows(t_text), kTextIds, all_image,
                       all_image_ids, alpha, t));
  EXPECT_NEAR(SumOf(out.losses).item<double>(), expected, 1e-9 * expected);
  // What the queue takes over are the teacher's features.
  itc->AfterStep();
  EXPECT_TRUE(itc->named_buffers()["image_queue"][3].equal(t_image[0]));
  EXPECT_TRUE(itc->named_buffers()["image_queue"][0].equal(t_image[1]));
}

TEST(ItcTest, QueueIsFirstInFirstOut) {
  ItcConfig config = SmallConfig();
  config.set_queue_size(5);
  auto itc = Make(config);
  const at::Tensor start = itc->named_buffers()["image_queue"].clone();
  EXPECT_TRUE(
      at::allclose(start.norm(2, -1), at::ones({5}, at::kDouble), 1e-5, 1e-6));
  const auto push = [&itc](const at::Tensor& rows, bool training,
                           int64_t step = 0) {
    TestForward forward(TestBatch({.images = rows.size(0)}), false,
                        {training, 7, step});
    forward.student["itc"] = itc.get();
    SetEmbeddings(*forward, rows, rows);
    itc->Compute(*forward);
  };
  const at::Tensor a = UnitRows(3), b = UnitRows(3), c = UnitRows(7);

  push(a, /*training=*/false);
  itc->AfterStep();
  EXPECT_TRUE(itc->named_buffers()["image_queue"].equal(start));

  // Two micro-steps of one optimizer step: the second wraps around.
  push(a, true);
  push(b, true);
  EXPECT_TRUE(itc->named_buffers()["image_queue"].equal(start));
  itc->AfterStep();
  EXPECT_TRUE(itc->named_buffers()["image_queue"].equal(
      at::stack({b[2], a[1], a[2], b[0], b[1]})));

  // A batch larger than the queue leaves its last rows; the next row is 1.
  push(c, true);
  itc->AfterStep();
  EXPECT_TRUE(itc->named_buffers()["text_queue"].equal(
      at::stack({c[6], c[2], c[3], c[4], c[5]}).roll({2}, {0})));

  // Features that are not finite are not kept.
  const at::Tensor before = itc->named_buffers()["text_queue"].clone();
  push(at::full({5, kDim}, std::numeric_limits<double>::quiet_NaN(),
                at::kDouble),
       true);
  itc->AfterStep();
  EXPECT_TRUE(itc->named_buffers()["text_queue"].equal(before));

  // Nor are those of a step that was skipped.
  push(a, true, 8);
  push(b, true, 9);
  itc->AfterStep();
  const at::Tensor queue = itc->named_buffers()["text_queue"];
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_FALSE(queue.eq(a[i]).all(1).any().item<bool>()) << i;
    EXPECT_TRUE(queue.eq(b[i]).all(1).any().item<bool>()) << i;
  }
}

TEST(ItcTest, PoolsTheMeanOfPatches) {
  ItcConfig config = SmallConfig();
  config.set_pool(ItcConfig::MEAN);
  auto itc = Make(config);
  Inputs in;
  for (bool has_cls : {true, false}) {
    TestForward forward(SharedIdBatch());
    forward.student["itc"] = itc.get();
    SetTokens(*forward, in.image, in.text, has_cls);
    const at::Tensor mean = (has_cls ? in.image.slice(1, 1) : in.image).mean(1);
    EXPECT_NEAR(forward->Get<at::Tensor>(ImageKey("itc", kImageEmbedding))[1][2]
                    .item<double>(),
                Project(*itc, "image_proj", mean)[1][2], 1e-12);
  }
  // CLS of an encoder without one is the mean too.
  auto cls = Make(SmallConfig());
  TestForward forward(SharedIdBatch());
  forward.student["itc"] = cls.get();
  SetTokens(*forward, in.image, in.text, /*has_cls=*/false);
  EXPECT_NEAR(forward->Get<at::Tensor>(ImageKey("itc", kImageEmbedding))[0][0]
                  .item<double>(),
              Project(*cls, "image_proj", in.image.mean(1))[0][0], 1e-12);
}

TEST(ItcTest, PoolsTheMeanOfATextsTokensWithoutPadding) {
  ItcConfig config = SmallConfig();
  config.set_text_pool(ItcConfig::MEAN);
  auto itc = Make(config);
  Inputs in;
  const auto embed = [&](const at::Tensor& text, const at::Tensor& mask) {
    TestForward forward(SharedIdBatch());
    forward.student["itc"] = itc.get();
    Tokens words;
    words.values = text;
    words.mask = mask;
    words.has_cls = true;
    forward->Set(TextKey("text", kTokens), words);
    return forward->Get<at::Tensor>(TextKey("itc", kTextEmbedding)).clone();
  };
  at::Tensor mask = at::ones({6, 6}, at::kBool);
  mask[4].slice(0, 3).fill_(false);
  at::Tensor mean = in.text.mean(1);
  mean[4] = in.text[4].slice(0, 0, 3).mean(0);
  const Matrix expected = Project(*itc, "text_proj", mean);
  const at::Tensor got = embed(in.text, mask);
  for (int64_t row : {0, 4}) {
    for (int64_t i = 0; i < kDim; ++i) {
      EXPECT_NEAR(got[row][i].item<double>(), expected[row][i], 1e-12);
    }
  }
  // What stands in the padding counts nothing.
  at::Tensor other = in.text.clone();
  other[4].slice(0, 3).add_(100);
  EXPECT_TRUE(embed(other, mask).equal(got));
  EXPECT_TRUE(embed(in.text, {})[0].allclose(got[0], 1e-12));
}

TEST(ItcTest, GradientsAreRight) {
  for (int64_t queue : {0, 4}) {
    ItcConfig config = SmallConfig();
    config.set_queue_size(queue);
    if (queue > 0) config.set_text_pool(ItcConfig::MEAN);
    config.set_temperature(0.3);
    auto itc = Make(config);
    Inputs in;
    std::vector<at::Tensor> inputs = {in.image, in.text};
    for (at::Tensor p : itc->parameters()) inputs.push_back(p);
    for (at::Tensor& x : inputs) x.requires_grad_(true);
    EXPECT_TRUE(NumericGradientCheck(
                    [&itc](const std::vector<at::Tensor>& x) {
                      TestForward forward(SharedIdBatch(), false,
                                          {/*training=*/false, 7, 0});
                      forward.student["itc"] = itc.get();
                      SetTokens(*forward, x[0], x[1]);
                      return SumOf(itc->Compute(*forward).losses);
                    },
                    inputs)
                    .ok());
  }
}

TEST(ItcTest, TemperatureIsClampedAfterAStep) {
  auto itc = Make(SmallConfig());
  at::Tensor temperature = itc->named_parameters()["temperature"];
  const auto set = [&temperature](double value) {
    c10::NoGradGuard no_grad;
    temperature.fill_(value);
  };
  set(3.0);
  itc->AfterStep();
  EXPECT_DOUBLE_EQ(temperature.item<double>(), 0.5);
  set(-1.0);
  itc->AfterStep();
  EXPECT_DOUBLE_EQ(temperature.item<double>(), 0.001);
  EXPECT_TRUE(temperature.requires_grad());
}

TEST(ItcTest, ContractNamesWhatItReadsAndProvides) {
  const Contract contract = ItcContract("itc", SmallConfig(), ContractBook());
  ASSERT_NE(contract.Find(kTextEmbedding), nullptr);
  EXPECT_EQ(contract.Find(kImageEmbedding)->dim, kDim);
  ASSERT_EQ(contract.needs.size(), 2u);
  EXPECT_EQ(contract.needs[0].instance, "image");
}

TEST(ItcTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateItc(ItcConfig()).ok());
  const std::vector<std::pair<std::string, void (*)(ItcConfig&)>> bad = {
      {"image", [](ItcConfig& c) { c.set_image(""); }},
      {"text", [](ItcConfig& c) { c.set_text(""); }},
      {"dim", [](ItcConfig& c) { c.set_dim(0); }},
      {"temperature", [](ItcConfig& c) { c.set_temperature(0.6); }},
      {"min_temperature", [](ItcConfig& c) { c.set_min_temperature(0); }},
      {"max_temperature", [](ItcConfig& c) { c.set_max_temperature(1e-4); }},
      {"alpha", [](ItcConfig& c) { c.set_alpha(1.1); }},
      {"alpha", [](ItcConfig& c) { c.set_alpha(std::nan("")); }},
      {"alpha_ramp_steps", [](ItcConfig& c) { c.set_alpha_ramp_steps(-1); }},
      {"queue_size", [](ItcConfig& c) { c.set_queue_size(-1); }}};
  for (const auto& [field, change] : bad) {
    ItcConfig config;
    change(config);
    const absl::Status status = ValidateItc(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
  ContractBook book;
  PluginContext context;
  context.instance = "itc";
  context.book = &book;
  EXPECT_EQ(MakeItc(ItcConfig(), context).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semvq
