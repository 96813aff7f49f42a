#include "bench/quantizers/collapse.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bench/quantizers/collapse_report.h"
#include "core/checkpoint/safetensors.h"
#include "core/config/load.h"
#include "core/config/merge.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/plugin/registry.h"
#include "core/util/file.h"
#include "tests/shapes.h"
#include "trainer/model.h"

namespace semvq {
namespace {

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

ArmResult Result(const std::string& name, uint64_t seed, double held_out,
                 double recently) {
  ArmResult r;
  r.name = name;
  r.seed = seed;
  r.codes_per_group = {8};
  r.used_held_out = held_out;
  r.used_by_stretch = {0.2, 0.9, recently};
  r.perplexity = 4;
  r.dead = 2;
  r.error = 0.25;
  r.step_ms = 3;
  r.features = 100;
  return r;
}

TEST(CodeUseTest, CountsEveryGroupByItself) {
  CodeUse use({4, 2});
  use.Add(at::tensor({0, 0, 1, 0, 0, 0}, at::kLong).view({1, 3, 2}));
  EXPECT_DOUBLE_EQ(use.LeastShare(), 0.5);  // 0, 1 of four; 0 of two.
  EXPECT_EQ(use.Unused(), 2 + 1);
  const double p =
      std::exp(-(2. / 3 * std::log(2. / 3) + std::log(1. / 3) / 3));
  EXPECT_NEAR(use.MeanPerplexity(), (p + 1) / 2, 1e-6);
  // What has no code counts nowhere.
  use.Add(at::tensor({3, -1, -1, 1}, at::kLong).view({2, 2}));
  EXPECT_DOUBLE_EQ(use.LeastShare(), 0.75);
  EXPECT_EQ(use.Unused(), 1);
  EXPECT_THROW(use.Add(at::zeros({3, 1}, at::kLong)), c10::Error);
}

TEST(CodeUseTest, NoGroups) {
  const CodeUse use({});
  EXPECT_EQ(use.LeastShare(), 0);
  EXPECT_EQ(use.MeanPerplexity(), 0);
  EXPECT_EQ(use.Unused(), 0);
}

TEST(ReportTest, TableIsMeanAndDeviationOverSeeds) {
  ArmResult none = Result("none", 1, 0, 0);
  none.codes_per_group.clear();
  ArmResult pair = Result("pair", 1, 1, 1);
  pair.codes_per_group = {8, 8};
  ArmResult lost = Result("lost", 1, 0, 0);
  lost.nonfinite_step = 7;
  TableFacts facts;
  facts.stretch = 200;
  EXPECT_EQ(
      CollapseTable({Result("vq", 1, 0.5, 0.7), none, pair, lost,
                     Result("vq", 2, 0.6, 0.9)},
                    facts),
      "| Quantizer | Codes | Used, held out, % | Used in the last 200 steps, % "
      "| Least of any 200 steps, % | Perplexity | Dead codes | Error "
      "| ms a step |\n"
      "|---|---|---|---|---|---|---|---|---|\n"
      "| `vq` | 8 | 55.0 ± 7.1 | 80.0 ± 14.1 | 80.0 ± 14.1 | 4 ± 0 | 2 ± 0 | "
      "0.250 ± 0.000 "
      "| 3.0 ± 0.0 |\n"
      "| `none` | none |  |  |  |  |  | 0.250 | 3.0 |\n"
      "| `pair` | 2 x 8 | 100.0 | 100.0 | 90.0 | 4 | 2 | 0.250 | 3.0 |\n"
      "| `lost` | 8 | seed 1 not finite at step 7 |  |  |  |  |  |  |\n");
}

TEST(ReportTest, JsonHasEveryNumberAndNoneThatIsNot) {
  ArmResult lost = Result("lo\"st", 3, 0, 0);
  lost.nonfinite_step = 7;
  TableFacts facts;
  facts.steps = 20;
  facts.stretch = 10;
  facts.batch_size = 4;
  facts.experiment = "e.pbtxt";
  facts.weights = "w";
  EXPECT_EQ(
      CollapseJson({Result("vq", 1, 0.5, 0.75), lost}, facts),
      "{\n  \"steps\": 20,\n  \"stretch\": 10,\n  \"batch_size\": 4,\n"
      "  \"experiment\": \"e.pbtxt\",\n  \"weights\": \"w\",\n"
      "  \"results\": [\n"
      "    {\"name\": \"vq\", \"seed\": 1, \"codes_per_group\": [8], "
      "\"used_held_out\": 0.5, \"used_by_stretch\": [0.2, 0.9, 0.75], "
      "\"perplexity\": 4, "
      "\"dead\": 2, \"error\": 0.25, \"step_ms\": 3, \"features\": 100},\n"
      "    {\"name\": \"lo\\\"st\", \"seed\": 3, \"codes_per_group\": [8], "
      "\"nonfinite_step\": 7}\n  ]\n}\n");
}

TEST(ReportTest, NamesWhatCollapsed) {
  ArmResult lost = Result("lost", 1, 1, 1);
  lost.nonfinite_step = 7;
  ArmResult none = Result("none", 1, 0, 0);
  none.codes_per_group.clear();
  const auto names =
      Collapsed({Result("both", 1, 0.6, 0.6), Result("held_out", 1, 0.59, 1),
                 Result("training", 2, 1, 0.1), lost, none},
                0.6);
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(names[0],
            "held_out (seed 1: 59.0 % held out, 100.0 % in training)");
  EXPECT_EQ(names[1],
            "training (seed 2: 100.0 % held out, 10.0 % in training)");
  EXPECT_EQ(names[2], "lost (seed 1: not finite at step 7)");
}

TEST(FlagsTest, ReadsAllAndNamesWhatIsWrong) {
  const auto options = ParseCollapseFlags(
      {"--run=r", "--config=c", "--checkpoint=p", "--stage=s", "--arms=a",
       "--only=x,y", "--held_out=h", "--seeds=3,4", "--steps=9", "--json=j"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->run + options->config + options->checkpoint +
                options->stage + options->arms + options->json,
            "rcpsaj");
  EXPECT_EQ(options->only, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(options->held_out, std::vector<std::string>{"h"});
  EXPECT_EQ(options->seeds, (std::vector<uint64_t>{3, 4}));
  EXPECT_EQ(options->steps, 9);
  for (const char* flag :
       {"--run", "--config", "--checkpoint", "--stage", "--arms", "--only",
        "--held_out", "--seeds", "--steps", "--json"}) {
    EXPECT_TRUE(absl::StrContains(CollapseHelp(), flag)) << flag;
  }
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{}, "--run is missing"},
      {{"--config=c"}, "--run is missing"},
      {{"--rum=r"}, "unknown argument \"--rum=r\""},
      {{"--run="}, "--run needs a value"},
      {{"--run=r", "--steps=0"}, "--steps: got \"0\""},
      {{"--run=r", "--steps=many"}, "--steps: got \"many\""},
      {{"--run=r", "--seeds=1,x"}, "--seeds: got \"x\""},
  };
  for (const auto& [args, message] : wrong) {
    const auto parsed = ParseCollapseFlags(args);
    ASSERT_FALSE(parsed.ok()) << message;
    EXPECT_TRUE(absl::StrContains(parsed.status().message(), message))
        << parsed.status();
  }
}

// The committed arms are valid and leave no quantizer of the tree out.
TEST(ArmsTest, EveryQuantizerIsMeasured) {
  const auto source = ReadSource(Runfile("bench/quantizers/collapse.pbtxt"));
  ASSERT_TRUE(source.ok()) << source.status();
  const LoadResult loaded = LoadExperiment({*source});
  EXPECT_TRUE(loaded.errors.empty()) << FormatReport(loaded.errors);
  std::set<std::string> types;
  for (const QuantizerConfig& arm : loaded.experiment.quantizers())
    types.insert(AnyTypeName(arm.config()));
  for (const PluginType* type :
       Registry::Global().OfKind(PluginKind::kQuantizer)) {
    EXPECT_EQ(types.count(type->name()), 1u) << type->name();
  }
}

constexpr char kStage[] = R"(
name: "tiny"
data {
  streams {
    name: "train"
    source {
      [type.googleapis.com/semvq.AlbefJsonConfig] {
        path: "${COLLAPSE_DATA}/train/pairs.json"
      }
    }
    transform { size: 32 crop: RANDOM_RESIZED_CROP min_scale: 0.8 }
  }
  streams {
    name: "other"
    source {
      [type.googleapis.com/semvq.AlbefJsonConfig] {
        path: "${COLLAPSE_DATA}/other/pairs.json"
      }
    }
    transform { size: 32 }
  }
  streams {
    name: "large"
    source {
      [type.googleapis.com/semvq.AlbefJsonConfig] {
        path: "${COLLAPSE_DATA}/other/pairs.json"
      }
    }
    transform { size: 64 }
  }
  workers: 1
}
encoders {
  name: "image"
  config {
    [type.googleapis.com/semvq.VitConfig] {
      patch_size: 8 dim: 32 depth: 1 heads: 2 image_size: 32
    }
  }
}
optimizer {
  lr: 3e-3
  groups { name: "stem" pattern: "image\\..*" lr_scale: 5 }
}
schedule { warmup_steps: 5 }
trainer { batch_size: 8 }
stages {
  name: "pretrain"
  with {
    trainer { stream: "train" steps: 60 }
    tasks { name: "elsewhere" stream: "other" }
    tasks { name: "itself" stream: "train" }
  }
}
stages { name: "nothing" }
)";

constexpr char kArms[] = R"(
quantizers {
  name: "ema" dim: 8
  config { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 16 } }
}
# From points far from every feature, and never revived: it collapses.
quantizers {
  name: "stuck" dim: 8
  config {
    [type.googleapis.com/semvq.VqConfig] {
      num_codes: 256
      codebook { init: RANDOM revive_after: 0 }
    }
  }
}
quantizers {
  name: "pair" dim: 8
  config {
    [type.googleapis.com/semvq.ProductConfig] {
      quantizer { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 8 } }
    }
  }
}
quantizers {
  name: "whole"
  config { [type.googleapis.com/semvq.NoneConfig] {} }
}
quantizers {
  name: "narrow" dim: 8
  config { [type.googleapis.com/semvq.NoneConfig] {} }
}
)";

class CollapseTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string data = JoinPath(testing::TempDir(), "data");
    ShapesOptions shapes;
    ASSERT_TRUE(WriteShapes(JoinPath(data, "train"), shapes).ok());
    shapes.images = 20;
    shapes.seed = 2;
    ASSERT_TRUE(WriteShapes(JoinPath(data, "other"), shapes).ok());
    setenv("COLLAPSE_DATA", data.c_str(), 1);
    WriteEncoder(kStage, JoinPath(testing::TempDir(), "encoder.safetensors"));
  }

  void SetUp() override {
    places_.working_folder = testing::TempDir();
    options_.config = Write("stage.pbtxt", kStage);
    options_.checkpoint = "encoder.safetensors";
    options_.arms = Write("arms.pbtxt", kArms);
    options_.steps = 30;
  }

  // The parameters that the stage's encoder starts from.
  static void WriteEncoder(const std::string& stage, const std::string& path) {
    const LoadResult loaded = LoadExperiment({{"stage", stage}});
    ASSERT_TRUE(loaded.errors.empty()) << FormatReport(loaded.errors);
    Experiment experiment;
    *experiment.mutable_encoders() = loaded.experiment.encoders();
    auto book = BuildContracts(experiment);
    ASSERT_TRUE(book.ok()) << book.status();
    const auto model = Model::Compose(experiment, *book, nullptr);
    ASSERT_TRUE(model.ok()) << model.status();
    NamedTensors tensors;
    for (const auto& p : (*model)->named_parameters())
      tensors.emplace_back(p.key(), p.value().detach());
    tensors.emplace_back("itc.projection", at::ones({2}));
    const absl::Status status = WriteSafetensors(path, tensors);
    ASSERT_TRUE(status.ok()) << status;
  }

  static std::string Write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(AtomicWriteFile(JoinPath(testing::TempDir(), name), text).ok());
    return name;
  }

  absl::StatusOr<CollapseOutcome> Run() {
    return RunCollapse(options_, places_, [this](const CollapseOutcome& o) {
      reported_ = o.results.size();
      return absl::OkStatus();
    });
  }

  std::map<std::string, ArmResult> RunByName() {
    const auto outcome = Run();
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    std::map<std::string, ArmResult> by_name;
    if (!outcome.ok()) return by_name;
    for (const ArmResult& r : outcome->results)
      by_name[absl::StrCat(r.name, r.seed)] = r;
    return by_name;
  }

  void ExpectError(const std::string& message) {
    const auto outcome = Run();
    ASSERT_FALSE(outcome.ok()) << message;
    EXPECT_TRUE(absl::StrContains(outcome.status().message(), message))
        << outcome.status();
  }

  CollapseOptions options_;
  CollapsePlaces places_;
  size_t reported_ = 0;
};

TEST_F(CollapseTest, MeasuresEveryArm) {
  auto results = RunByName();
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(reported_, 5u);
  for (const auto& [name, r] : results) {
    EXPECT_EQ(r.nonfinite_step, -1) << name;
    EXPECT_EQ(r.features, 20 * 16) << name;  // Images, patches.
    EXPECT_GT(r.step_ms, 0) << name;
  }
  const ArmResult& ema = results["ema1"];
  EXPECT_GT(ema.used_held_out, 0.5);
  EXPECT_EQ(ema.used_by_stretch.size(), 1u);
  EXPECT_GT(ema.used_by_stretch.back(), 0.5);
  EXPECT_GT(ema.perplexity, 1);
  EXPECT_LE(ema.perplexity, 16);
  // Most of its points are nobody's nearest.
  const ArmResult& stuck = results["stuck1"];
  EXPECT_LT(stuck.used_held_out, 0.5);
  EXPECT_LT(stuck.used_by_stretch.back(), 0.6);
  EXPECT_GT(stuck.dead, 256 * 0.4);
  EXPECT_EQ(results["pair1"].codes_per_group, (std::vector<int64_t>{8, 8}));
  EXPECT_LE(results["pair1"].perplexity, 8);
  // Without codes, and without a projection: the features themselves.
  EXPECT_TRUE(results["whole1"].codes_per_group.empty());
  EXPECT_EQ(results["whole1"].error, 0);
  EXPECT_GT(results["narrow1"].error, 0);
  EXPECT_LT(results["narrow1"].error, ema.error);
}

TEST_F(CollapseTest, AnArmDependsOnItsSeedAndOnNoOtherArm) {
  options_.seeds = {1, 2};
  auto all = RunByName();
  options_.only = {"ema"};
  auto one = RunByName();
  ASSERT_EQ(one.size(), 2u);
  for (const char* name : {"ema1", "ema2"}) {
    EXPECT_EQ(one[name].error, all[name].error) << name;
    EXPECT_EQ(one[name].perplexity, all[name].perplexity) << name;
  }
  EXPECT_NE(one["ema1"].error, one["ema2"].error);
}

TEST_F(CollapseTest, TrainingLowersTheError) {
  options_.only = {"ema"};
  options_.steps = 1;
  const double before = RunByName()["ema1"].error;
  options_.steps = 60;
  EXPECT_LT(RunByName()["ema1"].error, 0.8 * before);
}

TEST_F(CollapseTest, AnArmThatIsNotFiniteEndsAlone) {
  options_.arms = Write("wild.pbtxt", absl::StrCat(kArms, R"(
quantizers {
  name: "wild" dim: 8
  config { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 16 } }
  loss_weights { name: "commitment" weight: 1e200 }
})"));
  options_.only = {"wild", "ema"};
  auto results = RunByName();
  EXPECT_EQ(results["wild1"].nonfinite_step, 0);
  EXPECT_EQ(results["ema1"].nonfinite_step, -1);
}

TEST_F(CollapseTest, TakesTheRunsExperimentAndWeights) {
  const std::string run = JoinPath(testing::TempDir(), "run");
  ASSERT_TRUE(MakeDirectories(JoinPath(run, "pretrain")).ok());
  Write("run/experiment.pbtxt", kStage);
  options_.run = "run";
  options_.config.clear();
  options_.only = {"ema"};
  EXPECT_EQ(RunByName().size(), 1u);
  options_.checkpoint.clear();
  ExpectError("run/pretrain/checkpoints");
}

TEST_F(CollapseTest, BadInputIsNamed) {
  options_.only = {"emma"};
  ExpectError("has no quantizer \"emma\", only ema, stuck, pair");
  options_.only.clear();

  options_.stage = "pretrian";
  ExpectError("has no stage \"pretrian\", only pretrain, nothing");
  options_.stage = "nothing";
  ExpectError("stage nothing trains on no stream");
  options_.stage.clear();

  options_.held_out = {"large"};
  ExpectError("stream \"large\" has images of 64 pixels, expected 32");
  options_.held_out = {"nowhere"};
  ExpectError("no data stream \"nowhere\"");
  options_.held_out.clear();

  options_.arms = Write("more.pbtxt", "seed: 3");
  ExpectError("more.pbtxt: sets seed; expected quantizers alone");
  options_.arms = Write("none.pbtxt", "");
  ExpectError("none.pbtxt: has no quantizers");
  options_.arms = Write("bad.pbtxt", R"(quantizers {
  name: "ema" dim: 8
  config { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 0 } }
})");
  ExpectError("bad.pbtxt:3");
  options_.arms = Write("typo.pbtxt", "quantizer { name: 'ema' }");
  ExpectError("typo.pbtxt:1");
  options_.arms = "missing.pbtxt";
  ExpectError("missing.pbtxt");
  options_.arms = "arms.pbtxt";

  options_.checkpoint = "missing.safetensors";
  ExpectError("missing.safetensors");
}

// Weights of another encoder, larger or smaller, are no weights.
TEST_F(CollapseTest, WeightsMustBeTheEncodersOwn) {
  std::string deeper = kStage;
  deeper.replace(deeper.find("depth: 1"), 8, "depth: 2");
  WriteEncoder(deeper, JoinPath(testing::TempDir(), "deeper.safetensors"));
  options_.checkpoint = "deeper.safetensors";
  ExpectError("has image.blocks.1.");
  options_.config = Write("deeper.pbtxt", deeper);
  options_.checkpoint = "encoder.safetensors";
  ExpectError("missing in the file");
}

}  // namespace
}  // namespace semvq
