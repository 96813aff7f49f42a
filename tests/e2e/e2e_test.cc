// The quickstart's composition, view by view, and a whole run that learns.

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/config/load.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "data/loader.h"
#include "google/protobuf/text_format.h"
#include "protos/result.pb.h"
#include "tests/e2e/shrink.h"
#include "tests/shapes.h"
#include "trainer/evaluation.h"
#include "trainer/losses.h"
#include "trainer/model.h"
#include "trainer/nonfinite.h"
#include "trainer/run.h"
#include "trainer/streams.h"
#include "trainer/trainer.h"

namespace semvq {
namespace {

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

std::string Shapes() {
  static const std::string* folder = [] {
    auto* path = new std::string(JoinPath(testing::TempDir(), "e2e_shapes"));
    const absl::Status status = WriteShapes(*path);
    if (!status.ok()) ADD_FAILURE() << status;
    setenv("SEMVQ_DATA", path->c_str(), 1);
    setenv("E2E_DATA", path->c_str(), 1);
    // These tensors are far too small to share between threads.
    at::set_num_threads(1);
    return path;
  }();
  return *folder;
}

// A stage of the quickstart, small, with `overlay` merged in.
class SmallStage {
 public:
  SmallStage(const std::string& stage, const std::string& overlay) {
    const std::string shapes = Shapes();
    auto quickstart = ReadSource(Runfile("configs/quickstart.pbtxt"));
    EXPECT_TRUE(quickstart.ok()) << quickstart.status();
    LoadResult loaded = LoadExperiment({*quickstart, {"overlay", overlay}});
    const auto errors = CheckExperiment(loaded);
    EXPECT_TRUE(errors.empty()) << FormatReport(errors);
    Shrink(shapes, loaded.experiment);
    for (ResolvedStage& resolved :
         ResolveStages(loaded.experiment, loaded.provenance).stages) {
      if (resolved.name != stage) continue;
      experiment = resolved.experiment;
      ExpandVariables(resolved.provenance, &experiment);
    }
    auto words = LoadWordPiece(JoinPath(shapes, "vocab.txt"));
    EXPECT_TRUE(words.ok()) << words.status();
    tokenizer = *std::move(words);
    auto book = BuildContracts(experiment);
    EXPECT_TRUE(book.ok()) << book.status();
    auto made = Model::Compose(experiment, *book, tokenizer.get());
    EXPECT_TRUE(made.ok()) << made.status();
    model = *made;
    model->train();
    batch = FirstBatch();
  }

  Batch FirstBatch() {
    const std::string& name = experiment.trainer().stream();
    auto stream = Streams::Find(experiment, name);
    EXPECT_TRUE(stream.ok()) << stream.status();
    auto source = streams.Open(experiment, name);
    EXPECT_TRUE(source.ok()) << source.status();
    LoaderOptions options;
    options.batch_size = 4;
    options.max_tokens = experiment.text().max_tokens();
    auto loader = Loader::Create(**stream, *source, tokenizer.get(),
                                 experiment.data(), options);
    EXPECT_TRUE(loader.ok()) << loader.status();
    auto first = (*loader)->Next();
    EXPECT_TRUE(first.ok()) << first.status();
    return *std::move(first);
  }

  Experiment experiment;
  Streams streams;
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<Model> model;
  Batch batch;
};

// What a training step computes of the expensive instances, sorted.
std::vector<std::string> Passes(SmallStage& stage, const Providers* teacher) {
  Forward forward(stage.batch, stage.model->providers(), teacher, {true, 1, 0});
  const Losses losses = ComputeLosses(*stage.model, forward);
  EXPECT_TRUE(losses.total.defined());
  losses.total.backward();
  std::vector<std::string> passes;
  for (const ViewKey& key : forward.computed()) {
    for (const char* name : {"image", "text", "fusion", "codebook", "visual"}) {
      if (key.instance == name) passes.push_back(ToString(key));
    }
  }
  std::sort(passes.begin(), passes.end());
  return passes;
}

using Names = std::vector<std::string>;

TEST(Views, AQuickstartStepComputesEachOnceAndNothingElse) {
  SmallStage stage("pretrain", "");
  EXPECT_EQ(Passes(stage, nullptr),
            (Names{"codebook/quantized", "fusion/fused[pairing=itm]",
                   "fusion/fused[text_mask=mlm]", "image/tokens",
                   "image/tokens[image_mask=mim]", "text/tokens",
                   "text/tokens[text_mask=mlm]", "visual/tokens"}));
}

TEST(Views, FineTuningComputesOnePassEach) {
  SmallStage stage("vqa", "");
  EXPECT_EQ(Passes(stage, nullptr),
            (Names{"codebook/quantized", "fusion/fused", "image/tokens",
                   "text/tokens", "visual/tokens"}));
}

TEST(Views, TheTeacherAddsWhatIsAskedOfIt) {
  SmallStage stage("pretrain", "teacher { enabled: true }");
  const Names passes = Passes(stage, &stage.model->providers());
  EXPECT_EQ(passes,
            (Names{"codebook/quantized", "codebook/quantized[teacher]",
                   "fusion/fused[pairing=itm]",
                   "fusion/fused[teacher, "
                   "text_mask=mlm]",
                   "fusion/fused[text_mask=mlm]", "image/tokens",
                   "image/tokens[image_mask=mim]", "image/tokens[teacher]",
                   "text/tokens", "text/tokens[teacher, text_mask=mlm]",
                   "text/tokens[teacher]", "text/tokens[text_mask=mlm]",
                   "visual/tokens", "visual/tokens[teacher]"}));
}

TEST(Views, WhatNobodyAsksForIsNotComputed) {
  const auto without = [](const std::vector<std::string>& removed) {
    std::string overlay;
    for (const std::string& name : removed)
      absl::StrAppend(&overlay, "objectives { name: '", name,
                      "' remove: true } ");
    // Tasks read the heads that are gone.
    return absl::StrCat(
        overlay,
        "stages { name: 'vqa' remove: true } stages { name: 'pretrain' with { ",
        "tasks { name: 'unseen_concepts' remove: true } ",
        "tasks { name: 'random_pairs' remove: true } ",
        "tasks { name: 'mim_accuracy' remove: true } } }");
  };
  SmallStage contrast("pretrain",
                      without({"itm", "mlm", "mim", "reconstruction"}));
  EXPECT_EQ(Passes(contrast, nullptr), (Names{"image/tokens", "text/tokens"}));

  SmallStage masked("pretrain",
                    without({"itc", "itm", "mlm", "reconstruction"}));
  EXPECT_EQ(Passes(masked, nullptr),
            (Names{"codebook/quantized", "image/tokens",
                   "image/tokens[image_mask=mim]"}));

  SmallStage language("pretrain",
                      without({"itc", "itm", "mim", "reconstruction"}));
  EXPECT_EQ(
      Passes(language, nullptr),
      (Names{"codebook/quantized", "fusion/fused[text_mask=mlm]",
             "image/tokens", "text/tokens[text_mask=mlm]", "visual/tokens"}));
}

// How language reaches the codes: the gradient of MLM's loss at the features
// that are quantised, squared and summed.
double GradientOfLanguageAtFeatures(const std::string& mode) {
  SmallStage stage("pretrain",
                   absl::StrCat("visual_tokens { mode: ", mode, " }"));
  Forward forward(stage.batch, stage.model->providers(), nullptr, {true, 1, 0});
  for (Model::ObjectiveEntry& entry : stage.model->objectives()) {
    if (entry.name != "mlm") continue;
    const at::Tensor features =
        forward.Get<QuantizedTokens>(ImageKey("codebook", kQuantized)).features;
    const at::Tensor loss = entry.objective->Compute(forward).losses[0].second;
    const at::Tensor gradient = torch::autograd::grad(
        {loss}, {features}, {}, false, false, /*allow_unused=*/true)[0];
    return gradient.defined() ? gradient.square().sum().item<double>() : 0;
  }
  ADD_FAILURE() << "no mlm";
  return -1;
}

TEST(Evaluation, StopsAtTheNextBatchOnASignal) {
  SmallStage stage("vqa", "");
  StageSetup setup;
  setup.experiment = stage.experiment;
  setup.streams = &stage.streams;
  setup.tokenizer = stage.tokenizer.get();
  std::atomic<int> signal{0};
  setup.stop_signal = &signal;
  TaskConfig task = stage.experiment.tasks(0);
  task.set_batch_size(1);
  StreamEvalContext context(setup, *stage.model, task);
  int batches = 0;
  const absl::Status status = context.ForEachBatch([&](const Batch&) {
    if (++batches == 3) signal = SIGTERM;
    return absl::OkStatus();
  });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(batches, 3);
}

// What --debug_nonfinite says of a step of the quickstart with one bad value.
class NonFinite : public testing::Test {
 protected:
  NonFinite() : stage_("pretrain", "") {}

  std::string Find() {
    at::manual_seed(1);
    return FindNonFinite(*stage_.model, nullptr, stage_.batch, {true, 1, 0},
                         /*bf16=*/false);
  }
  at::Tensor Parameter(const std::string& name) {
    const at::Tensor* found = stage_.model->named_parameters().find(name);
    EXPECT_NE(found, nullptr) << name;
    return found == nullptr ? at::Tensor() : *found;
  }

  SmallStage stage_;
  const double nan_ = std::nan("");
};

TEST_F(NonFinite, AHealthyStepHasNothing) { EXPECT_EQ(Find(), ""); }

TEST_F(NonFinite, AParameterIsNamedBeforeWhatItSpoils) {
  c10::NoGradGuard no_grad;
  const auto& parameters = stage_.model->named_parameters();
  const auto text = std::find_if(
      parameters.begin(), parameters.end(),
      [](const auto& p) { return absl::StartsWith(p.key(), "text."); });
  ASSERT_NE(text, parameters.end());
  text->value().flatten()[0] = nan_;
  const std::string found = Find();
  EXPECT_TRUE(absl::StartsWith(found, "parameter " + text->key() + " ["))
      << found;
  EXPECT_TRUE(absl::StrContains(found, ": 1 of ")) << found;
}

TEST_F(NonFinite, SoIsTheBatch) {
  stage_.batch.images[2][0][1][3][3] = nan_;
  const std::string found = Find();
  EXPECT_TRUE(absl::StartsWith(found, "the batch's images [")) << found;
  EXPECT_TRUE(absl::EndsWith(
      found, "1 of " + absl::StrCat(stage_.batch.images.numel()) +
                 " values, the first in row 2"))
      << found;
}

// Too large for float32 only once they are multiplied.
TEST_F(NonFinite, AViewIsNamedWhereItOverflows) {
  {
    c10::NoGradGuard no_grad;
    for (const auto& p : stage_.model->named_parameters()) {
      if (absl::StartsWith(p.key(), "text.")) p.value().mul_(1e25);
    }
  }
  const std::string found = Find();
  EXPECT_TRUE(absl::StartsWith(found, "view text/tokens")) << found;
}

TEST_F(NonFinite, GradientsAreNamedLast) {
  at::Tensor weight = Parameter("mlm.decoder.bias");
  ASSERT_TRUE(weight.defined());
  weight.register_hook([](const at::Tensor& g) { return g / 0.0; });
  const std::string found = Find();
  EXPECT_TRUE(
      absl::StartsWith(found, "the gradient of parameter mlm.decoder.bias ["))
      << found;
}

TEST(Method, LanguageReachesTheCodesThroughTheQuantisedTokensOnly) {
  EXPECT_GT(GradientOfLanguageAtFeatures("QUANTIZED"), 0);
  EXPECT_GT(GradientOfLanguageAtFeatures("GATED"), 0);
  EXPECT_EQ(GradientOfLanguageAtFeatures("CONTINUOUS"), 0);
}

class Run : public testing::Test {
 protected:
  // Runs tiny.pbtxt in a folder of this test's.
  int Train(const std::string& name, const std::vector<std::string>& more) {
    Shapes();
    folder_ = JoinPath(testing::TempDir(), absl::StrCat("run_", name));
    EXPECT_TRUE(MakeDirectories(folder_).ok());
    setenv("BUILD_WORKING_DIRECTORY", folder_.c_str(), 1);
    std::vector<std::string> arguments = {
        "trainer", "--config=" + Runfile("tests/e2e/tiny.pbtxt")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunTrainer(arguments);
  }

  StageResult Result(const std::string& stage) {
    StageResult result;
    auto text = ReadFile(
        JoinPath(folder_, absl::StrCat("runs/tiny/", stage, "/result.pbtxt")));
    EXPECT_TRUE(text.ok()) << text.status();
    EXPECT_TRUE(text.ok() &&
                google::protobuf::TextFormat::ParseFromString(*text, &result));
    return result;
  }

  static std::map<std::string, LoggedValue> Values(const StageResult& result) {
    std::map<std::string, LoggedValue> values;
    for (const LoggedValue& v : result.values()) values[v.name()] = v;
    return values;
  }

  static double Headline(const StageResult& result, const std::string& metric) {
    for (const TaskSummary& task : result.tasks()) {
      for (const Metric& m : task.metrics())
        if (m.name() == metric) return m.value();
    }
    ADD_FAILURE() << "no " << metric << " in " << result.DebugString();
    return 0;
  }

  std::string folder_;
};

// Starting anew with another `text` must not read the old tokenizer.
TEST_F(Run, FreshStagesTrainTheTokenizerAnew) {
  const std::string shorter =
      "--merge=stages { name: 'pretrain' with { trainer { steps: 1 } } } "
      "stages { name: 'vqa' remove: true }";
  ASSERT_EQ(Train("fresh", {shorter}), kExitDone);
  const std::string path = JoinPath(folder_, "runs/tiny/tokenizer.model");
  const auto first = ReadFile(path);
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string other = "--merge=text { sentencepiece { vocab_size: 30 } }";
  EXPECT_EQ(Train("fresh", {shorter, other}), kExitFailed);
  EXPECT_EQ(*ReadFile(path), *first);
  ASSERT_EQ(Train("fresh", {shorter, other, "--fresh=all"}), kExitDone);
  EXPECT_NE(*ReadFile(path), *first);
}

// A vocabulary of the words of the data, kept as a trained model is.
TEST_F(Run, CollectsItsWords) {
  const std::string words =
      "--merge=text { wordpiece { train_on: 'pairs' min_images: 2 } } stages { "
      "name: 'pretrain' with { trainer { steps: 1 } } } stages { name: 'vqa' "
      "remove: true }";
  ASSERT_EQ(Train("words", {words}), kExitDone);
  const auto vocabulary = ReadFile(JoinPath(folder_, "runs/tiny/vocab.txt"));
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_TRUE(
      absl::StartsWith(*vocabulary, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"))
      << *vocabulary;
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/tiny/tokenizer.model")));
  // Starting anew leaves no tokenizer of before.
  const std::string pieces =
      "--merge=stages { name: 'pretrain' with { trainer { steps: 1 } } } "
      "stages { name: 'vqa' remove: true }";
  ASSERT_EQ(Train("words", {pieces, "--fresh=all"}), kExitDone);
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/tiny/vocab.txt")));
  EXPECT_TRUE(PathExists(JoinPath(folder_, "runs/tiny/tokenizer.model")));
  EXPECT_EQ(
      Train("none", {words, "--merge=text { wordpiece { min_images: 1000 } }"}),
      kExitFailed);
}

TEST_F(Run, LearnsEveryLossAndTheTasks) {
  ASSERT_EQ(Train("learns", {}), kExitDone);
  const StageResult pretrain = Result("pretrain");
  EXPECT_EQ(pretrain.steps(), 60);
  EXPECT_EQ(pretrain.nonfinite_steps(), 0);
  EXPECT_EQ(pretrain.bad_samples(), 0);
  auto values = Values(pretrain);
  EXPECT_LT(values["loss"].last(), 0.8 * values["loss"].first());
  for (const char* name :
       {"itc/contrast", "mlm/mask", "reconstruction/pixels"}) {
    ASSERT_TRUE(values.count(name)) << name;
    EXPECT_LT(values[name].last(), values[name].first()) << name;
  }
  // Every objective reaches the encoders.
  for (const char* name : {"itc", "itm", "mlm", "mim", "reconstruction"}) {
    const std::string share = absl::StrCat("share/image/", name);
    ASSERT_TRUE(values.count(share)) << share;
    EXPECT_GT(values[share].last(), 0) << share;
  }
  const StageResult vqa = Result("vqa");
  auto answers = Values(vqa);
  EXPECT_LT(answers["loss"].last(), 0.8 * answers["loss"].first());
  for (const char* file :
       {"report.txt", "experiment.pbtxt", "tokenizer.model",
        "pretrain/metrics.jsonl", "vqa/metrics.jsonl", "vqa/vqa_result.json"}) {
    auto size = FileSize(JoinPath(folder_, absl::StrCat("runs/tiny/", file)));
    ASSERT_TRUE(size.ok()) << size.status();
    EXPECT_GT(*size, 0) << file;
  }
}

// The saved experiment alone makes the same run.
TEST_F(Run, TheSavedExperimentReproducesTheRun) {
  const std::string few =
      "--merge=stages { name: 'vqa' remove: true } stages { name: 'pretrain' "
      "with { trainer { steps: 6 } } } logging { every: 2 }";
  ASSERT_EQ(Train("first", {few}), kExitDone);
  auto values = Values(Result("pretrain"));
  const std::string saved = JoinPath(folder_, "runs/tiny/experiment.pbtxt");
  folder_ = JoinPath(testing::TempDir(), "run_again");
  ASSERT_TRUE(MakeDirectories(folder_).ok());
  setenv("BUILD_WORKING_DIRECTORY", folder_.c_str(), 1);
  ASSERT_EQ(RunTrainer({"trainer", "--config=" + saved}), kExitDone);
  for (const auto& [name, value] : Values(Result("pretrain"))) {
    EXPECT_EQ(value.last(), values[name].last()) << name;
  }
}

// NLVR2: both images are encoded once, and the codebook learns from both.
TEST(Views, BothImagesOfAPairAreReadAndQuantised) {
  SmallStage stage("pairs_of_images", R"(
    data {
      streams {
        name: "statements"
        source { [type.googleapis.com/semvq.Nlvr2JsonlConfig] { path: "x" } }
        transform { size: 64 }
      }
    }
    stages {
      name: "pairs_of_images"
      with {
        encoders {
          name: "fusion"
          config {
            [type.googleapis.com/semvq.CrossFusionConfig] { slot_copies: 2 }
          }
        }
        objectives { name: "itc" remove: true }
        objectives { name: "itm" remove: true }
        objectives { name: "mlm" remove: true }
        objectives { name: "mim" remove: true }
        objectives { name: "reconstruction" remove: true }
        trainer { stream: "statements" steps: 2 }
        tasks {
          name: "nlvr2" stream: "statements" fine_tune: true
          config { [type.googleapis.com/semvq.Nlvr2Config] {} }
        }
      }
    })");
  ASSERT_EQ(stage.batch.images.size(1), 2);
  EXPECT_EQ(Passes(stage, nullptr),
            (std::vector<std::string>{
                "codebook/quantized", "codebook/quantized[slot=1]",
                "fusion/fused", "image/tokens", "image/tokens[slot=1]",
                "text/tokens", "visual/tokens", "visual/tokens[slot=1]"}));

  stage.model->eval();  // Without dropout.
  const auto commitment = [&stage](const at::Tensor& images) {
    Batch batch = stage.batch;
    batch.images = images;
    Forward forward(batch, stage.model->providers(), nullptr, {true, 1, 0});
    for (const auto& [name, value] : ComputeLosses(*stage.model, forward).named)
      if (name == "codebook/commitment") return value.item<double>();
    ADD_FAILURE() << "no codebook loss";
    return 0.0;
  };
  const at::Tensor images = stage.batch.images;
  const auto both_of = [&images](int64_t slot) {
    return images.narrow(1, slot, 1).expand_as(images).contiguous();
  };
  const double left = commitment(both_of(0)), right = commitment(both_of(1));
  EXPECT_NE(left, right);
  EXPECT_NEAR(commitment(images), (left + right) / 2, 1e-6);
}

}  // namespace
}  // namespace semvq
