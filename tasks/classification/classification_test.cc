#include "tasks/classification/classification.h"

#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing_eval.h"
#include "core/plugin/task.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "tasks/classification/linear_probe.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

// What is minimised, written anew.
double Loss(const at::Tensor& x, const at::Tensor& labels, double penalty,
            const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor scores = at::matmul(x, weight) + bias;
  const at::Tensor right = scores.gather(1, labels.unsqueeze(1)).squeeze(1);
  return (scores.logsumexp(1) - right).mean().item<double>() +
         penalty / 2 * weight.square().sum().item<double>();
}

class ProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(17);
    features_ = at::randn({90, 5}, at::kDouble) * 3 + 2;
    labels_ = (features_.select(1, 0) > 2).to(at::kLong) +
              (features_.select(1, 1) > 3).to(at::kLong);
    options_.classes = 3;
    options_.penalty = 1e-2;
  }
  at::Tensor Scaled(const LinearProbe& probe) const {
    return (features_ - probe.mean) * probe.scale;
  }

  at::Tensor features_, labels_;
  LinearProbeOptions options_;
};

TEST_F(ProbeTest, EndsAtTheMinimum) {
  const LinearProbe probe = FitLinearProbe(features_, labels_, options_);
  EXPECT_TRUE(probe.converged);
  const at::Tensor x = Scaled(probe);
  EXPECT_LT(x.mean(0).abs().max().item<double>(), 1e-12);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, 1e-12);
  const auto loss = [&](const at::Tensor& w, const at::Tensor& b) {
    return Loss(x, labels_, options_.penalty, w, b);
  };
  EXPECT_NEAR(probe.loss, loss(probe.weight, probe.bias), 1e-12);
  // Flat in every direction by finite differences, and higher beside it.
  for (int64_t i = 0; i < 5; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      at::Tensor step = at::zeros_like(probe.weight);
      step[i][c] = 1e-3;
      const double up = loss(probe.weight + step, probe.bias);
      const double down = loss(probe.weight - step, probe.bias);
      EXPECT_NEAR((up - down) / 2e-3, 0, 2e-6);
      EXPECT_GT(up, probe.loss);
      EXPECT_GT(down, probe.loss);
    }
  }
  EXPECT_GT(probe.Scores(features_)
                .argmax(1)
                .eq(labels_)
                .to(at::kDouble)
                .mean()
                .item<double>(),
            0.7);
}

TEST_F(ProbeTest, EqualsThePlainDescent) {
  options_.penalty = 0.1;
  const LinearProbe probe = FitLinearProbe(features_, labels_, options_);
  const at::Tensor x = Scaled(probe);
  const at::Tensor target = at::one_hot(labels_, 3).to(at::kDouble);
  at::Tensor weight = at::zeros({5, 3}, at::kDouble),
             bias = at::zeros({3}, at::kDouble);
  for (int i = 0; i < 4000; ++i) {
    const at::Tensor residual =
        (at::softmax(at::matmul(x, weight) + bias, 1) - target) / 90;
    weight = weight - 0.5 * (at::matmul(x.t(), residual) + 0.1 * weight);
    bias = bias - 0.5 * residual.sum(0);
  }
  EXPECT_LT((probe.weight - weight).abs().max().item<double>(), 1e-4);
  EXPECT_LT((probe.bias - bias).abs().max().item<double>(), 1e-4);
}

// One feature, one image of each of two classes: with w the difference of the
// two classes' weights, w = 2 sigmoid(-w) / penalty.
TEST_F(ProbeTest, TwoPointsByHand) {
  options_.classes = 2;
  options_.penalty = 0.25;
  const LinearProbe probe =
      FitLinearProbe(at::tensor({-1.0, 1.0}).view({2, 1}),
                     at::tensor({0, 1}, at::kLong), options_);
  double low = 0, high = 10;
  for (int i = 0; i < 200; ++i) {
    const double w = (low + high) / 2;
    (w < 2 / (1 + std::exp(w)) / 0.25 ? low : high) = w;
  }
  EXPECT_NEAR((probe.weight[0][1] - probe.weight[0][0]).item<double>(), low,
              1e-4);
}

TEST_F(ProbeTest, AStartSparesStepsAndChangesNothing) {
  const LinearProbe cold = FitLinearProbe(features_, labels_, options_);
  options_.penalty = 2e-2;
  const LinearProbe near = FitLinearProbe(features_, labels_, options_);
  options_.penalty = 1e-2;
  const LinearProbe warm = FitLinearProbe(features_, labels_, options_, &near);
  EXPECT_LT(warm.iterations, cold.iterations);
  EXPECT_LT((warm.weight - cold.weight).abs().max().item<double>(), 1e-3);
  // The same numbers again, to the bit.
  const LinearProbe again = FitLinearProbe(features_, labels_, options_, &near);
  EXPECT_TRUE(at::equal(again.weight, warm.weight));
  EXPECT_TRUE(at::equal(again.bias, warm.bias));
}

TEST_F(ProbeTest, HardCasesEnd) {
  // Nothing to tell apart.
  const LinearProbe constant = FitLinearProbe(
      at::ones({6, 2}), at::tensor({0, 0, 0, 0, 1, 1}, at::kLong), options_);
  EXPECT_TRUE(constant.converged);
  EXPECT_TRUE(constant.Scores(at::ones({1, 2})).isfinite().all().item<bool>());
  EXPECT_EQ(constant.Scores(at::ones({1, 2})).argmax(1).item<int64_t>(), 0);
  // Separable, and one class only.
  options_.penalty = 1e-6;
  const LinearProbe split =
      FitLinearProbe(at::tensor({-1.0, -2.0, 1.0, 2.0}).view({4, 1}),
                     at::tensor({0, 0, 1, 1}, at::kLong), options_);
  EXPECT_TRUE(split.converged);
  const LinearProbe one =
      FitLinearProbe(features_, at::zeros({90}, at::kLong), options_);
  EXPECT_TRUE(one.weight.isfinite().all().item<bool>());
  options_.max_iterations = 1;
  const LinearProbe stopped = FitLinearProbe(features_, labels_, options_);
  EXPECT_FALSE(stopped.converged);
  EXPECT_EQ(stopped.iterations, 1);
  // More rows than are looked at at once.
  const at::Tensor many = features_.repeat({200, 1});
  options_.max_iterations = 1000;
  options_.penalty = 1e-2;
  const LinearProbe repeated =
      FitLinearProbe(many, labels_.repeat({200}), options_);
  const LinearProbe single = FitLinearProbe(features_, labels_, options_);
  EXPECT_LT((repeated.weight - single.weight).abs().max().item<double>(), 1e-4);
}

// Images whose only pixel says what they are: class 0, 1 or 2 of "red",
// "green", "blue".
class ClassificationTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string vocab = JoinPath(testing::TempDir(), "colors.txt");
    ASSERT_TRUE(AtomicWriteFile(vocab,
                                "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n"
                                "green\nblue\na\nshape\n")
                    .ok());
    auto tokenizer = LoadWordPiece(vocab);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    book_.max_tokens = 6;
    Contract quantizer;
    quantizer.codes.codes_per_group = {3, 4};
    book_.Add("codebook", quantizer);
    config_.add_class_name("red");
    config_.add_class_name("green");
    config_.add_class_name("blue");
  }

  // `labels`: an image's answers, "|" between texts; pixels: its class.
  static std::vector<Batch> Stream(
      const std::vector<std::pair<int, std::string>>& images, int64_t size) {
    std::vector<Batch> batches;
    for (size_t begin = 0; begin < images.size(); begin += size) {
      Batch batch;
      std::vector<float> pixels;
      std::vector<int64_t> owner;
      for (size_t i = begin; i < std::min(begin + size, images.size()); ++i) {
        pixels.push_back(static_cast<float>(images[i].first));
        batch.image_ids.push_back(absl::StrCat("image", i));
        batch.sample_numbers.push_back(static_cast<int64_t>(i));
        for (absl::string_view answer : Split(images[i].second)) {
          owner.push_back(static_cast<int64_t>(i - begin));
          batch.texts.emplace_back();
          if (!answer.empty())
            batch.texts.back().answers = {{std::string(answer), 1.0f}};
        }
      }
      const auto n = static_cast<int64_t>(pixels.size());
      batch.images = torch::tensor(pixels).view({n, 1, 1, 1, 1});
      batch.text_ids =
          at::zeros({static_cast<int64_t>(owner.size()), 1}, at::kLong);
      batch.text_mask = at::ones(batch.text_ids.sizes(), at::kBool);
      batch.text_to_image = torch::tensor(owner, at::kLong);
      batches.push_back(batch);
    }
    return batches;
  }
  static std::vector<absl::string_view> Split(absl::string_view text) {
    std::vector<absl::string_view> parts;
    while (true) {
      const size_t bar = text.find('|');
      parts.push_back(text.substr(0, bar));
      if (bar == absl::string_view::npos) return parts;
      text.remove_prefix(bar + 1);
    }
  }

  static at::Tensor Kind(const Batch& batch) {
    return batch.images.flatten().to(at::kLong);
  }
  // The embedding of an image is its class's direction, of length 1; of a text,
  // the number of times it says a colour, of any length.
  void Wire(FakeEvalContext& context) {
    context.Provide("itc", [this](const ViewKey& key, Forward& f) -> std::any {
      if (key.view == kImageEmbedding)
        return at::eye(3).index_select(0, Kind(f.batch()));
      const at::Tensor& ids = f.batch().text_ids;
      prompts_seen_.push_back(ids.size(0));
      std::vector<at::Tensor> counts;
      for (int64_t id = 5; id < 8; ++id)
        counts.push_back((ids == id).logical_and(f.batch().text_mask).sum(1) *
                         5);
      return at::stack(counts, 1).to(at::kFloat);
    });
    context.Provide("image", [](const ViewKey&, Forward& f) -> std::any {
      Tokens tokens;  // [CLS] says nothing; the patches do, but for a sign.
      const at::Tensor kind = at::one_hot(Kind(f.batch()), 3).to(at::kFloat);
      tokens.values = at::stack({at::zeros_like(kind), 3 * kind, -kind}, 1);
      tokens.has_cls = true;
      return tokens;
    });
    context.Provide("codebook", [](const ViewKey&, Forward& f) -> std::any {
      QuantizedTokens out;
      const at::Tensor kind = Kind(f.batch());
      // Two positions; the second is not valid. The second group says nothing.
      const at::Tensor first = at::stack({kind, at::full_like(kind, 3)}, 1);
      out.quantized.codes = at::stack({first, at::full_like(first, -1)}, 1);
      out.quantized.vectors = at::zeros({kind.size(0), 2, 4});
      return out;
    });
  }
  absl::StatusOr<TaskResult> Evaluate(FakeEvalContext& context) {
    Wire(context);
    PluginContext plugin;
    plugin.instance = "colors";
    plugin.book = &book_;
    plugin.tokenizer = tokenizer_.get();
    auto task = MakeClassification(config_, plugin);
    if (!task.ok()) return task.status();
    return (*task)->Evaluate(context);
  }
  ClassificationConfig::LinearProbe* AddProbe(
      const std::string& name,
      ClassificationConfig::LinearProbe::Features features,
      const std::string& from) {
    auto* probe = config_.add_probes();
    probe->set_name(name);
    probe->set_features(features);
    probe->set_from(from);
    return probe;
  }

  ContractBook book_;
  std::unique_ptr<Tokenizer> tokenizer_;
  ClassificationConfig config_;
  std::vector<int64_t> prompts_seen_;
};

const std::vector<std::pair<int, std::string>> kImages = {
    {0, "red"}, {1, "green"}, {2, "what|blue|"},  {0, "green"}, {0, "red"},
    {1, "yes"}, {2, "blue"},  {1, "green|green"}, {0, ""},      {1, "red"},
};

TEST_F(ClassificationTest, ZeroShotReadsPromptsAndLabels) {
  config_.mutable_zero_shot()->add_templates("a {} shape");
  config_.mutable_zero_shot()->add_templates("{} {}");
  config_.mutable_zero_shot()->set_batch_size(4);
  FakeEvalContext context(Stream(kImages, 4));
  context.skipped_samples = 2;
  const auto result = Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(prompts_seen_, (std::vector<int64_t>{4, 2}));
  // Of the 8 labelled images two are labelled wrong: 3 red, 3 green, 2 blue.
  EXPECT_EQ(MetricOf(*result, "zero-shot top-1").value, 75);
  EXPECT_NEAR(MetricOf(*result, "zero-shot top-1").chance, 100.0 / 3, 1e-12);
  EXPECT_NEAR(MetricOf(*result, "zero-shot mean of the classes").value,
              (200.0 / 3 + 200.0 / 3 + 100) / 3, 1e-9);
  EXPECT_EQ(MetricOf(*result, "baseline: majority class").value, 37.5);
  EXPECT_THROW(MetricOf(*result, "zero-shot top-5"), std::out_of_range);
  for (const char* part :
       {"8 images, 3 classes", "2 images have none of the classes",
        "2 bad samples"})
    EXPECT_TRUE(absl::StrContains(result->note, part)) << result->note;

  dom::parser parser;
  dom::element file;
  ASSERT_EQ(parser.load(result->files.at(0)).get(file), simdjson::SUCCESS);
  EXPECT_EQ(std::string_view(file["classes"].at(1)), "green");
  EXPECT_EQ(file["images"].get_array().size(), 8u);
  EXPECT_EQ(std::string_view(file["images"].at(3)["image_id"]), "image3");
  EXPECT_EQ(std::string_view(file["images"].at(3)["label"]), "green");
  EXPECT_EQ(std::string_view(file["images"].at(3)["zero-shot"].at(0)), "red");
  // Of equals the first class stands first.
  EXPECT_EQ(std::string_view(file["images"].at(3)["zero-shot"].at(1)), "green");
  EXPECT_EQ(double(file["per_class"]["zero-shot"]["blue"]), 100);
}

TEST_F(ClassificationTest, ProbesLearnFromTheTrainStream) {
  using Probe = ClassificationConfig::LinearProbe;
  AddProbe("cls", Probe::CLS, "image")->add_penalties(0.1);
  AddProbe("mean", Probe::MEAN, "image")->add_penalties(0.1);
  AddProbe("codes", Probe::CODES, "codebook");
  AddProbe("vectors", Probe::CODE_VECTORS, "codebook");
  AddProbe("embedding", Probe::EMBEDDING, "itc")->add_penalties(1e-3);
  config_.set_train_stream("train");
  config_.set_validation_stream("val");
  std::vector<std::pair<int, std::string>> train;
  for (int i = 0; i < 30; ++i) {
    const int kind = i < 20 ? i % 3 : 1;  // Mostly green.
    train.emplace_back(kind, config_.class_name(kind));
  }
  std::vector<TaskResult> results;
  std::string file;
  for (const int64_t size : {5, 3, 64}) {
    FakeEvalContext context(Stream(kImages, size));
    context.streams["train"] = Stream(train, size);
    context.streams["val"] = Stream({kImages[0], kImages[1], kImages[6]}, size);
    const auto result = Evaluate(context);
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back(*result);
    // The batch size does not matter.
    ASSERT_EQ(result->metrics.size(), results[0].metrics.size());
    for (size_t m = 0; m < result->metrics.size(); ++m)
      EXPECT_EQ(result->metrics[m].value, results[0].metrics[m].value);
    const auto written = ReadFile(result->files.at(0));
    ASSERT_TRUE(written.ok()) << written.status();
    if (file.empty()) file = *written;
    EXPECT_EQ(*written, file);
  }
  const TaskResult& result = results[0];
  // What says nothing gives the majority: green, 3 of 8.
  EXPECT_EQ(MetricOf(result, "cls top-1").value, 37.5);
  EXPECT_EQ(MetricOf(result, "vectors top-1").value, 37.5);
  EXPECT_EQ(MetricOf(result, "baseline: majority class").value, 37.5);
  for (const char* name : {"mean", "codes", "embedding"})
    EXPECT_EQ(MetricOf(result, absl::StrCat(name, " top-1")).value, 75) << name;
  EXPECT_TRUE(absl::StrContains(result.note, "codes: 30 images, penalty"))
      << result.note;
  EXPECT_TRUE(absl::StrContains(result.note, "of 12 by 3 validation images"))
      << result.note;
}

// Strong enough, the penalty leaves the majority alone; validation rejects it.
TEST_F(ClassificationTest, ValidationChoosesThePenalty) {
  auto* probe =
      AddProbe("mean", ClassificationConfig::LinearProbe::MEAN, "image");
  probe->add_penalties(1e-4);
  probe->add_penalties(1e5);
  probe->add_penalties(1e-5);
  config_.set_train_stream("train");
  config_.set_validation_stream("val");
  const auto evaluate = [&](const std::string& own_label) {
    FakeEvalContext context(Stream(kImages, 4));
    context.streams["train"] =
        Stream({{0, "red"}, {1, "green"}, {1, "green"}, {2, "blue"}}, 4);
    context.streams["val"] = Stream({{0, own_label}, {2, own_label}}, 4);
    return Evaluate(context);
  };
  const auto good = evaluate("red");
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_TRUE(absl::StrContains(good->note, "penalty 0.0001 of 3"))
      << good->note;
  EXPECT_EQ(MetricOf(*good, "mean top-1").value, 75);
  const auto majority = evaluate("green");
  ASSERT_TRUE(majority.ok()) << majority.status();
  EXPECT_TRUE(absl::StrContains(majority->note, "penalty 100000 of 3"))
      << majority->note;
  EXPECT_EQ(MetricOf(*majority, "mean top-1").value, 37.5);
}

TEST_F(ClassificationTest, WrongDataIsRefused) {
  config_.mutable_zero_shot();
  const auto refused =
      [&](const std::vector<std::pair<int, std::string>>& images,
          const char* reason) {
        FakeEvalContext context(Stream(images, 4));
        const absl::Status status = Evaluate(context).status();
        EXPECT_TRUE(absl::StrContains(status.message(), reason)) << status;
      };
  refused({{0, "red|green"}},
          "image \"image0\" is labelled \"red\" and \"green\"");
  refused({{0, "Red"}, {1, ""}}, "(2 images without)");
  FakeEvalContext context(Stream(kImages, 4));
  Wire(context);
  context.Provide("itc", [](const ViewKey& key, Forward& f) -> std::any {
    return at::full({key.view == kImageEmbedding ? f.batch().num_images()
                                                 : f.batch().text_ids.size(0),
                     3},
                    std::numeric_limits<double>::quiet_NaN());
  });
  PluginContext plugin;
  plugin.book = &book_;
  plugin.tokenizer = tokenizer_.get();
  auto task = MakeClassification(config_, plugin);
  ASSERT_TRUE(task.ok());
  EXPECT_TRUE(absl::StrContains((*task)->Evaluate(context).status().message(),
                                "not finite"));
}

TEST_F(ClassificationTest, WrongClassesAndCodesAreRefused) {
  PluginContext plugin;
  plugin.book = &book_;
  plugin.tokenizer = tokenizer_.get();
  const auto refused = [&](const char* reason) {
    const absl::Status status = MakeClassification(config_, plugin).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), reason)) << status;
  };
  config_.mutable_zero_shot();
  config_.add_class_name("red");
  refused("\"red\" twice");
  config_.set_class_name(3, "?!");
  refused("a name with words");
  config_.clear_class_name();
  config_.add_class_name("red");
  refused("got 1 classes");
  config_.clear_class_name();
  config_.set_classes(JoinPath(testing::TempDir(), "classes.json"));
  ASSERT_TRUE(AtomicWriteFile(config_.classes(), "[\"a\", 3]").ok());
  refused("item 1 of the list is not a string");
  config_.set_classes("/nowhere.json");
  EXPECT_EQ(MakeClassification(config_, plugin).status().code(),
            absl::StatusCode::kNotFound);
  plugin.planning = true;
  EXPECT_TRUE(MakeClassification(config_, plugin).ok());
  plugin.planning = false;
  config_.clear_classes();
  config_.add_class_name("red");
  config_.add_class_name("green");
  plugin.tokenizer = nullptr;
  refused("no tokenizer");
  config_.clear_zero_shot();
  AddProbe("codes", ClassificationConfig::LinearProbe::CODES, "big");
  refused("has no codes");
  Contract quantizer;
  quantizer.codes.codes_per_group = {1 << 18};
  book_.Add("big", quantizer);
  refused("262144 codes, expected at most 65536");
}

TEST(ClassificationConfigs, ErrorsAreReported) {
  ClassificationConfig config;
  absl::Status status = ValidateClassification(config);
  EXPECT_TRUE(absl::StrContains(status.message(), "classes: got nothing"));
  EXPECT_TRUE(absl::StrContains(status.message(), "zero_shot: got nothing"));
  config.add_class_name("a");
  config.mutable_zero_shot();
  EXPECT_TRUE(ValidateClassification(config).ok());
  config.set_classes("also.json");
  config.mutable_zero_shot()->add_templates("a picture");
  config.mutable_zero_shot()->set_batch_size(0);
  for (int i = 0; i < 2; ++i) {
    auto* probe = config.add_probes();
    probe->set_name("label");
    probe->add_penalties(i);
    probe->add_penalties(std::nan(""));
    probe->set_from("");
    probe->set_max_iterations(0);
  }
  status = ValidateClassification(config);
  for (const char* part :
       {"classes: got a file and class_name", "zero_shot.templates",
        "zero_shot.batch_size", "probes.name: got \"label\"",
        "probes.penalties: got 0", "probes.penalties: got nan", "probes.from",
        "probes.max_iterations", "train_stream", "validation_stream"})
    EXPECT_TRUE(absl::StrContains(status.message(), part))
        << part << " in " << status;
}

TEST(ClassificationConfigs, NeedsWhatItLooksAt) {
  ClassificationConfig config;
  config.set_classes("c.json");
  config.mutable_zero_shot()->set_contrastive("c");
  auto* probe = config.add_probes();
  probe->set_features(ClassificationConfig::LinearProbe::CODES);
  probe->set_from("q");
  const Contract contract = ClassificationContract("x", config, ContractBook());
  ASSERT_EQ(contract.needs.size(), 3u);
  EXPECT_EQ(contract.needs[1].view, kTextEmbedding);
  EXPECT_EQ(contract.needs[2].instance, "q");
  EXPECT_TRUE(contract.needs[2].needs_codes);
  EXPECT_EQ(contract.files.size(), 1u);
}

}  // namespace
}  // namespace semvq
