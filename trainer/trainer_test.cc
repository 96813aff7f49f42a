#include <torch/nn/module.h>
#include <torch/types.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"
#include "gtest/gtest.h"
#include "trainer/code_use.h"
#include "trainer/evaluation.h"
#include "trainer/flags.h"
#include "trainer/init_from.h"
#include "trainer/optimizer.h"
#include "trainer/report.h"
#include "trainer/stage_log.h"

namespace semvq {
namespace {

bool Contains(absl::string_view text, absl::string_view part) {
  return text.find(part) != absl::string_view::npos;
}

TEST(FlagsTest, ReadsEveryForm) {
  const auto flags = ParseFlags(
      {"--config=a.pbtxt", "--overlay", "b,c", "--overlay=d", "--merge=seed: 2",
       "--merge=trainer { steps: 1, epochs: 2 }", "--mode=plan", "--fresh=all",
       "--stages=x,y", "--collective_timeout=30"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->config, "a.pbtxt");
  EXPECT_EQ(flags->overlays, (std::vector<std::string>{"b", "c", "d"}));
  ASSERT_EQ(flags->merges.size(), 2u);
  EXPECT_EQ(flags->merges[1], "trainer { steps: 1, epochs: 2 }");
  EXPECT_EQ(flags->mode, Flags::RunMode::kPlan);
  EXPECT_EQ(flags->fresh, std::vector<std::string>{"all"});
  EXPECT_EQ(flags->stages, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(ParseFlags({"--config=a", "--reuse=runs/b"})->reuse, "runs/b");
  EXPECT_EQ(flags->collective_timeout, 30);
}

TEST(FlagsTest, NamesWhatIsWrong) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "--config is missing"},
      {{"--confg=a"}, "unknown argument \"--confg=a\""},
      {{"quickstart.pbtxt"}, "unknown argument"},
      {{"--config"}, "--config needs a value"},
      {{"--config=a", "--config=b"}, "--config is given twice"},
      {{"--config=a", "--mode=trian"},
       "expected train, eval, validate or plan"},
      {{"--config=a", "--reuse=runs/b", "--mode=eval"},
       "--reuse goes with --mode=train"},
      {{"--config=a", "--collective_timeout=soon"},
       "--collective_timeout: got \"soon\""},
      {{"--config=a", "--collective_timeout=0"}, "1 or more"},
  };
  for (const auto& [args, message] : cases) {
    const auto flags = ParseFlags(args);
    ASSERT_FALSE(flags.ok()) << message;
    EXPECT_TRUE(Contains(flags.status().message(), message)) << flags.status();
  }
  EXPECT_TRUE(ParseFlags({"--help"}).ok());
  for (const char* flag :
       {"--config", "--overlay", "--merge", "--mode", "--stages", "--fresh",
        "--reuse", "--debug_nonfinite", "--collective_timeout",
        "--list_plugins"}) {
    EXPECT_TRUE(Contains(HelpText(), flag)) << flag;
  }
}

TEST(ScheduleTest, WarmsUpThenFollowsACosine) {
  OptimizerConfig optimizer;
  optimizer.set_lr(1.0);
  ScheduleConfig schedule;
  schedule.set_warmup_steps(10);
  schedule.set_warmup_lr(0.1);
  schedule.set_min_lr(0.2);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, schedule, 0, 110), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, schedule, 5, 110), 0.55);
  EXPECT_DOUBLE_EQ(LearningRate(optimizer, schedule, 10, 110), 1.0);
  EXPECT_NEAR(LearningRate(optimizer, schedule, 60, 110), 0.6, 1e-12);
  EXPECT_NEAR(LearningRate(optimizer, schedule, 110, 110), 0.2, 1e-12);
  EXPECT_NEAR(LearningRate(optimizer, schedule, 500, 110), 0.2, 1e-12);
}

// The update written out from Loshchilov and Hutter's Algorithm 2.
TEST(AdamWTest, EqualsTheFormula) {
  OptimizerConfig config;
  config.set_weight_decay(0.1);
  config.set_beta1(0.8);
  config.set_beta2(0.95);
  torch::manual_seed(1);
  at::Tensor matrix = torch::randn({3, 4}, at::kDouble).requires_grad_();
  at::Tensor bias = torch::randn({4}, at::kDouble).requires_grad_();
  at::Tensor unused = torch::randn({2, 2}, at::kDouble).requires_grad_();
  const at::Tensor unused_before = unused.detach().clone();
  auto optimizer = AdamW::Create(
      config, {{"matrix", matrix}, {"bias", bias}, {"unused", unused}});
  ASSERT_TRUE(optimizer.ok()) << optimizer.status();
  struct State {
    at::Tensor p, m, v;
    double decay;
  };
  State states[] = {
      {matrix.detach().clone(), at::zeros_like(matrix), at::zeros_like(matrix),
       0.1},
      {bias.detach().clone(), at::zeros_like(bias), at::zeros_like(bias), 0.0}};
  at::Tensor live[] = {matrix, bias};
  for (int t = 1; t <= 5; ++t) {
    const double lr = 0.01 * t;
    optimizer->ZeroGrad();
    ((matrix.sin() + bias) * (matrix - t)).sum().backward();
    for (int i = 0; i < 2; ++i) {
      State& s = states[i];
      const at::Tensor g = live[i].grad();
      s.m = 0.8 * s.m + 0.2 * g;
      s.v = 0.95 * s.v + 0.05 * g * g;
      s.p = s.p * (1 - lr * s.decay) -
            lr * (s.m / (1 - std::pow(0.8, t))) /
                ((s.v / (1 - std::pow(0.95, t))).sqrt() + 1e-8);
    }
    optimizer->Step(lr);
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(at::allclose(live[i], states[i].p, 1e-10, 1e-12)) << t;
    }
  }
  EXPECT_TRUE(at::equal(unused, unused_before));
}

TEST(AdamWTest, GroupsClippingAndState) {
  OptimizerConfig config;
  config.set_clip_norm(1.0);
  ParameterGroup* group = config.add_groups();
  group->set_name("slow");
  group->set_pattern("slow\\..*");
  group->set_lr_scale(0.0);
  at::Tensor slow = torch::ones({2, 2}).requires_grad_();
  at::Tensor fast = torch::ones({2, 2}).requires_grad_();
  auto optimizer = AdamW::Create(config, {{"slow.w", slow}, {"fast.w", fast}});
  ASSERT_TRUE(optimizer.ok()) << optimizer.status();
  (slow.sum() * 30 + fast.sum() * 40).backward();
  EXPECT_NEAR(optimizer->ClipGradients().item<double>(), 100, 1e-3);
  EXPECT_NEAR(std::hypot(slow.grad().norm().item<double>(),
                         fast.grad().norm().item<double>()),
              1, 1e-4);
  optimizer->Step(0.1);
  EXPECT_TRUE(at::equal(slow, torch::ones({2, 2})));
  EXPECT_FALSE(at::equal(fast, torch::ones({2, 2})));

  auto other = AdamW::Create(config, {{"slow.w", slow}, {"fast.w", fast}});
  ASSERT_TRUE(other->LoadState(optimizer->State()).ok());
  const auto a = optimizer->State(), b = other->State();
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
  EXPECT_TRUE(absl::IsNotFound(other->LoadState({})));

  group->set_pattern("nothing");
  EXPECT_TRUE(
      Contains(AdamW::Create(config, {{"fast.w", fast}}).status().message(),
               "matches no parameter"));
  group->set_pattern("(");
  EXPECT_TRUE(
      Contains(AdamW::Create(config, {{"fast.w", fast}}).status().message(),
               "is no RE2 expression"));
}

TEST(IntervalMeansTest, StateGoesOnInTheMiddleOfAnInterval) {
  const auto value = [](double v) {
    return NamedTensors{{"loss", torch::tensor(v)}};
  };
  IntervalMeans whole, first_half;
  for (double v : {1.0, 2.0}) {
    whole.Add(value(v));
    first_half.Add(value(v));
  }
  EXPECT_DOUBLE_EQ(whole.Take()["loss"], 1.5);
  first_half.Take();
  whole.Add(value(3));
  first_half.Add(value(3));
  IntervalMeans second_half;
  second_half.LoadState(first_half.State());
  whole.Add(value(5));
  second_half.Add(value(5));
  EXPECT_DOUBLE_EQ(whole.Take()["loss"], 4);
  EXPECT_DOUBLE_EQ(second_half.Take()["loss"], 4);
  ASSERT_EQ(second_half.Summary().size(), 1u);
  EXPECT_DOUBLE_EQ(second_half.Summary()[0].first(), 1.5);
  EXPECT_DOUBLE_EQ(second_half.Summary()[0].last(), 4);
}

TEST(CodeUseTest, CodesByPowersOfTwo) {
  const at::Tensor counts = torch::tensor({0, 1, 2, 3, 4, 9, 0}, at::kLong);
  const at::Tensor age = torch::tensor({5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0});
  const std::vector<CodeVectors> codes =
      CodeVectorsOf("codebook", {{"level0/code_counts", counts},
                                 {"level0/code_age", age},
                                 {"level1/code_counts", counts},
                                 {"level1/code_age", age}});
  ASSERT_EQ(codes.size(), 2u);
  EXPECT_EQ(codes[1].name, "codebook/level1");
  const CodeUse use = Summarise(codes[0], 40);
  EXPECT_EQ(use.name(), "codebook/level0");
  EXPECT_EQ(use.step(), 40);
  EXPECT_EQ(std::vector<int64_t>(use.by_count().begin(), use.by_count().end()),
            (std::vector<int64_t>{2, 1, 2, 1, 1}));
  EXPECT_EQ(std::vector<int64_t>(use.by_age().begin(), use.by_age().end()),
            (std::vector<int64_t>{5, 0, 0, 2}));
  StageResult result;
  *result.add_codes() = use;
  const std::string text = FormatResults({result});
  EXPECT_TRUE(Contains(text, "codes of step 40")) << text;
  EXPECT_TRUE(Contains(text, "codebook/level0: times used")) << text;
  EXPECT_TRUE(Contains(text, "4-7")) << text;
  EXPECT_TRUE(CodeVectorsOf("codebook", {}).empty());
}

TEST(CodeUseTest, TensorBoardGetsItsHistograms) {
  StageLogOptions options;
  options.folder = JoinPath(::testing::TempDir(), "code_use");
  options.total_steps = 1;
  ASSERT_TRUE(MakeDirectories(options.folder).ok());
  auto log = StageLog::Create(options);
  ASSERT_TRUE(log.ok()) << log.status();
  const CodeVectors codes{"codebook", torch::ones({4}), torch::zeros({4})};
  ASSERT_TRUE((*log)->Codes(1, codes).ok());
  std::string events;
  for (const auto& entry : std::filesystem::directory_iterator(
           JoinPath(options.folder, "tensorboard"))) {
    auto content = ReadFile(entry.path().string());
    ASSERT_TRUE(content.ok()) << content.status();
    events += *content;
  }
  for (const char* tag :
       {"codebook/codes", "codebook/code_counts", "codebook/code_age"}) {
    EXPECT_TRUE(Contains(events, tag)) << tag;
  }
}

class InitFromTest : public ::testing::Test {
 protected:
  struct Nested : torch::nn::Module {
    explicit Nested(double fill) {
      body = register_module("body", std::make_shared<Leaf>(fill));
      head = register_module("head", std::make_shared<Leaf>(fill));
    }
    struct Leaf : torch::nn::Module {
      explicit Leaf(double fill) {
        w = register_parameter("w", torch::full({2, 3}, fill));
      }
      at::Tensor w;
    };
    std::shared_ptr<Leaf> body, head;
  };

  std::string Write(const NamedTensors& tensors) {
    const std::string path =
        JoinPath(::testing::TempDir(), "init_from.safetensors");
    EXPECT_TRUE(WriteSafetensors(path, tensors).ok());
    return path;
  }
};

TEST_F(InitFromTest, MapsOneTensorToSeveralParameters) {
  const std::string path = Write({{"body.w", torch::full({2, 3}, 7.f)}});
  Nested net(0);
  InitFrom config;
  PrefixMap* map = config.add_maps();
  map->set_from("body.");
  map->set_to("head.");
  const auto report = InitParameters(config, path, net);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->loaded, 2);
  EXPECT_EQ(report->loaded_values, 12);
  EXPECT_EQ(net.head->w[1][2].item<float>(), 7);
  EXPECT_EQ(net.body->w[0][0].item<float>(), 7);
}

TEST_F(InitFromTest, ListsAllThatDoesNotFitAndCopiesNothing) {
  const std::string path = Write(
      {{"body.w", torch::full({3, 2}, 7.f)}, {"extra", torch::ones({1})}});
  Nested net(0);
  const auto failed = InitParameters({}, path, net);
  ASSERT_FALSE(failed.ok());
  for (const char* part :
       {"missing in the file (1): head.w",
        "of another shape or type (1): body.w [2,3] Float from body.w [3,2] "
        "Float",
        "unexpected in the file (1): extra"}) {
    EXPECT_TRUE(Contains(failed.status().message(), part)) << failed.status();
  }
  EXPECT_EQ(net.body->w.sum().item<float>(), 0);

  const std::string good = Write(
      {{"body.w", torch::full({2, 3}, 7.f)}, {"extra", torch::ones({1})}});
  InitFrom allow;
  allow.add_allow_missing("head\\..*");
  allow.add_allow_unexpected("extra");
  const auto report = InitParameters(allow, good, net);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->missing, std::vector<std::string>{"head.w"});
  EXPECT_EQ(report->unexpected, std::vector<std::string>{"extra"});
}

// Weights under another project's names, with a naming of the test's own.
class WeightsTest : public InitFromTest {
 protected:
  void SetUp() override {
    const std::string map = JoinPath(::testing::TempDir(), "naming.textproto");
    ASSERT_TRUE(AtomicWriteFile(map,
                                "summary: 'their naming' "
                                "rules { ours: 'w' theirs: ['up', 'down'] } "
                                "unused: 'clock'")
                    .ok());
    up_ = torch::full({1, 3}, 1.f);
    down_ = torch::full({1, 3}, 2.f);
  }

  WeightsImport* Add(const std::string& path, const std::string& to) {
    WeightsImport* import = config_.add_weights();
    import->set_name(to);
    import->set_path(path);
    import->set_key_map("naming.textproto");
    import->set_from("net.");
    import->set_to(to);
    return import;
  }

  absl::StatusOr<InitReport> Init(const std::string& path,
                                  torch::nn::Module& net) {
    const auto resolved = ResolveInitFrom(config_, "/", {::testing::TempDir()});
    if (!resolved.ok()) return resolved.status();
    return InitParameters(*resolved, path, net);
  }

  InitFrom config_;
  at::Tensor up_, down_;
};

TEST_F(WeightsTest, FillOneInstanceAndReportTheRest) {
  const std::string path = Write({{"net.up", up_},
                                  {"net.down", down_},
                                  {"net.clock", up_},
                                  {"other", up_}});
  Add(path, "body.");
  config_.add_allow_unexpected("other");
  Nested net(0);
  const auto report = Init("", net);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(at::equal(net.body->w, at::cat({up_, down_})));
  EXPECT_EQ(net.head->w.abs().sum().item<float>(), 0);
  EXPECT_EQ(report->loaded, 1);
  EXPECT_EQ(report->all, 2);
  EXPECT_EQ(report->untouched, std::vector<std::string>{"head.w"});
  const std::string text = ToString(*report);
  for (const char* part :
       {"parameters loaded: 1 of 2 tensors, 6 of 12 values",
        "init_from.safetensors: 1 tensors, 6 values (body.*: their naming)",
        "no source is given (1): head 1", "not used (2): net.clock, other"}) {
    EXPECT_TRUE(Contains(text, part)) << part << "\n" << text;
  }
}

TEST_F(WeightsTest, TheOthersComeFromTheWholeModel) {
  const std::string weights =
      JoinPath(::testing::TempDir(), "theirs.safetensors");
  ASSERT_TRUE(
      WriteSafetensors(weights, {{"net.up", up_}, {"net.down", down_}}).ok());
  Add(weights, "body.");
  const std::string whole = Write({{"head.w", torch::full({2, 3}, 5.f)}});
  Nested net(0);
  const auto report = Init(whole, net);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(net.head->w[0][0].item<float>(), 5);
  EXPECT_EQ(net.body->w[1][0].item<float>(), 2);
  EXPECT_EQ(report->sources.size(), 2u);
  EXPECT_EQ(report->loaded, 2);
}

TEST_F(WeightsTest, MistakesAreFatalAndNamed) {
  const std::string good = Write({{"net.up", up_}, {"net.down", down_}});
  Nested net(0);
  const auto expect = [&](const std::string& part) {
    const auto failed = Init("", net);
    ASSERT_FALSE(failed.ok()) << part;
    EXPECT_TRUE(Contains(failed.status().message(), part)) << failed.status();
    EXPECT_EQ(net.body->w.abs().sum().item<float>(), 0);
    config_.Clear();
  };
  Add(good, "body.")->set_from("");
  expect("missing in the file (1): body.w");
  Add(good, "body.")->set_from("");
  expect("suggest from: \"net.\"");
  Add(good, "boddy.");
  expect("expected one of body., head.");
  Add(good, "body.");
  Add(good, "body.")->set_name("again");
  expect("which another entry fills as well");
  Add(good, "body.")->set_key_map("none.textproto");
  expect("no key map none.textproto");

  const std::string extra =
      Write({{"net.up", up_}, {"net.down", down_}, {"net.more", up_}});
  Add(extra, "body.");
  expect("unexpected in the file (1): net.more");
  const std::string shape =
      Write({{"net.up", up_}, {"net.down", torch::ones({2, 3})}});
  Add(shape, "body.");
  expect("body.w [2,3] Float from net.up [1,3] Float + net.down [2,3] Float");
  const std::string type = Write(
      {{"net.up", up_.to(torch::kLong)}, {"net.down", down_.to(torch::kLong)}});
  Add(type, "body.");
  expect("of another shape or type (1): body.w [2,3] Float from net.up");
}

TEST(ReportTest, ShowsValuesTasksAndSkips) {
  StageResult result;
  result.set_stage("pretrain");
  result.set_steps(10);
  result.set_bad_samples(3);
  result.set_nonfinite_steps(2);
  LoggedValue* value = result.add_values();
  value->set_name("itc/contrast");
  value->set_first(4.25);
  value->set_last(1.5);
  TaskSummary* task = result.add_tasks();
  task->set_name("unseen");
  Metric* metric = task->add_metrics();
  metric->set_name("TR R@1");
  metric->set_value(12.5);
  metric->set_chance(0.5);
  metric->set_unit("%");
  metric->set_headline(true);
  const std::string text = FormatResults({result});
  for (const char* part : {"itc/contrast", "4.25", "1.5", "TR R@1", "12.5 %",
                           "0.5 %", "3 bad samples", "2 steps were skipped"}) {
    EXPECT_TRUE(Contains(text, part)) << part << "\n" << text;
  }
}

TEST(FinishedTasksTest, HoldForOneModelAndWhileTheirFilesAreThere) {
  const std::string folder = JoinPath(testing::TempDir(), "finished");
  ASSERT_TRUE(RemoveTree(folder).ok());
  ASSERT_TRUE(MakeDirectories(folder).ok());
  TaskSummary task;
  task.set_name("retrieval");
  task.add_metrics()->set_value(12.5);
  task.add_files("ranking.jsonl");
  ASSERT_TRUE(AtomicWriteFile(JoinPath(folder, "ranking.jsonl"), "x").ok());
  {
    FinishedTasks finished(folder, "hash", 60);
    EXPECT_EQ(finished.Find("retrieval"), nullptr);
    ASSERT_TRUE(finished.Add(task, 2.5).ok());
    task.set_name("vqa");
    task.clear_files();
    ASSERT_TRUE(finished.Add(task, 1.5).ok());
  }
  const FinishedTasks again(folder, "hash", 60);
  ASSERT_NE(again.Find("retrieval"), nullptr);
  EXPECT_EQ(again.Find("retrieval")->metrics(0).value(), 12.5);
  EXPECT_NE(again.Find("vqa"), nullptr);
  EXPECT_EQ(again.Find("other"), nullptr);
  EXPECT_EQ(again.seconds(), 4);
  EXPECT_EQ(FinishedTasks(folder, "another", 60).Find("vqa"), nullptr);
  EXPECT_EQ(FinishedTasks(folder, "hash", 61).Find("vqa"), nullptr);

  ASSERT_TRUE(RemoveTree(JoinPath(folder, "ranking.jsonl")).ok());
  FinishedTasks lost(folder, "hash", 60);
  EXPECT_EQ(lost.Find("retrieval"), nullptr);
  task.set_name("retrieval");
  ASSERT_TRUE(lost.Add(task, 1).ok());
  EXPECT_NE(FinishedTasks(folder, "hash", 60).Find("retrieval"), nullptr);

  ASSERT_TRUE(AtomicWriteFile(FinishedTasks::Path(folder), "config_ha").ok());
  EXPECT_EQ(FinishedTasks(folder, "hash", 60).Find("vqa"), nullptr);
}

TEST(ProcessTest, AgeAndMemoryAreMeasured) {
  const double first = ProcessAgeMs();
  EXPECT_GT(first, 0);
  EXPECT_LT(first, 60e3);
  EXPECT_GT(PeakMemoryBytes(), 10 << 20);
}

}  // namespace
}  // namespace semvq
