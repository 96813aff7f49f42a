// benchmarks_small on the real data that setup.sh prepares, with a few steps a
// stage: every task's metrics and files, the files scored by readers that are
// not ours, a second call, and the arms that lack the image or the text.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/config/print.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"
#include "protos/result.pb.h"
#include "trainer/run.h"

namespace semvq {
namespace {

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

std::string Data(const std::string& file) {
  return JoinPath(*GetVariable("SEMVQ_DATA"), file);
}

// What a command prints.
std::string Output(const std::string& command) {
  std::string text;
  std::FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return text;
  char buffer[4096];
  while (std::fgets(buffer, sizeof(buffer), out) != nullptr) text += buffer;
  EXPECT_EQ(pclose(out), 0) << command;
  return text;
}

// The number that follows `name` in what a scoring script prints: "name 1.5" on
// a line of its own, or {"name": 1.5, ...}.
double Scored(const std::string& printed, const std::string& name) {
  for (const absl::string_view line : absl::StrSplit(printed, '\n')) {
    for (const std::string& lead :
         {absl::StrCat(name, " "), absl::StrCat("\"", name, "\": ")}) {
      const size_t at = line.find(lead);
      if (at == absl::string_view::npos) continue;
      // Not within another name, as in "reranked TR R@1".
      if (at > 0 && lead[0] != '"') continue;
      double value = NAN;
      const absl::string_view rest = line.substr(at + lead.size());
      EXPECT_TRUE(
          absl::SimpleAtod(rest.substr(0, rest.find_first_of(",}")), &value))
          << line;
      return value;
    }
  }
  ADD_FAILURE() << name << " is not in\n" << printed;
  return NAN;
}

int RunCut(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {
      "trainer", "--config=" + Runfile("configs/benchmarks_small.pbtxt"),
      "--overlay=" + Runfile("tests/e2e/benchmarks_cut.pbtxt"),
      "--merge=device: CPU"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunTrainer(arguments);
}

class Benchmarks : public testing::Test {
 protected:
  // One run for all tests.
  static void SetUpTestSuite() {
    ASSERT_TRUE(PathExists(Data("manifest.json")))
        << "the data are not there (" << Data("")
        << "); ./setup.sh prepares them";
    ASSERT_TRUE(RemoveTree(Folder("")).ok());
    ASSERT_TRUE(MakeDirectories(Folder("")).ok());
    setenv("BUILD_WORKING_DIRECTORY", Folder("").c_str(), 1);
    ASSERT_EQ(RunCut({}), kExitDone);
  }

  // Under the folder of the call.
  static std::string Folder(const std::string& path) {
    return JoinPath(JoinPath(testing::TempDir(), "benchmarks"), path);
  }

  static StageResult Result(const std::string& stage,
                            const std::string& run = "benchmarks_small") {
    StageResult result;
    const auto text = ReadFile(
        Folder(absl::StrCat("runs/", run, "/", stage, "/result.pbtxt")));
    EXPECT_TRUE(text.ok()) << text.status();
    if (text.ok()) {
      EXPECT_TRUE(
          google::protobuf::TextFormat::ParseFromString(*text, &result));
    }
    return result;
  }

  static double Value(const StageResult& result, const std::string& task,
                      const std::string& metric) {
    for (const TaskSummary& summary : result.tasks()) {
      for (const Metric& found : summary.metrics()) {
        if (summary.name() == task && found.name() == metric) {
          return found.value();
        }
      }
    }
    ADD_FAILURE() << "no " << metric << " of " << task;
    return NAN;
  }

  static std::string File(const std::string& stage, const std::string& file) {
    return Folder(absl::StrCat("runs/benchmarks_small/", stage, "/", file));
  }

  // Prints of tests/golden/tasks/<task>/score.py for a result file.
  static std::string Score(const std::string& task,
                           const std::vector<std::string>& files) {
    std::string command = absl::StrCat(
        "python3 -B ", Runfile("tests/golden/tasks/" + task + "/score.py"));
    for (const std::string& file : files) absl::StrAppend(&command, " ", file);
    return Output(command);
  }
};

TEST_F(Benchmarks, EveryTaskHasFiniteMetricsAndItsFiles) {
  struct Expected {
    const char *task, *metric;
    std::vector<std::string> files;
  };
  const std::map<std::string, std::vector<Expected>> expected = {
      {"pretrain",
       {{"zero_shot_unseen", "TR R@1", {"zero_shot_unseen_ranking.jsonl"}},
        {"zero_shot_random",
         "reranked IR R@1",
         {"zero_shot_random_ranking.jsonl"}},
        {"mim_accuracy", "MIM top-1", {}},
        {"semantics",
         "NMI of codes and words",
         {"semantics_top_words.json", "semantics_codes.png"}}}},
      {"retrieval",
       {{"retrieval_unseen", "TR R@1", {"retrieval_unseen_ranking.jsonl"}},
        {"retrieval_random", "IR R@10", {"retrieval_random_ranking.jsonl"}}}},
      {"vqa",
       {{"vqa", "accuracy, yes/no", {"vqa_result.json"}},
        {"vqa_decoder", "accuracy", {"vqa_decoder_result.json"}}}},
      {"visual_entailment",
       {{"visual_entailment", "accuracy", {"visual_entailment_result.json"}},
        {"visual_entailment_unseen",
         "accuracy",
         {"visual_entailment_unseen_result.json"}}}},
      {"nlvr2_text_assignment", {}},
      {"nlvr2",
       {{"nlvr2",
         "consistency",
         {"nlvr2_predictions.csv", "nlvr2_result.json"}},
        {"nlvr2_unseen", "accuracy", {"nlvr2_unseen_predictions.csv"}}}},
      {"grounding", {{"grounding", "hit@0.5", {"grounding_result.json"}}}},
      {"captioning", {{"captioning", "CIDEr", {"captioning_result.json"}}}},
      {"classification",
       {{"shape", "zero-shot top-1", {"shape_result.json"}},
        {"color", "patches top-5", {"color_result.json"}},
        {"shape_of_codes", "codes top-1", {"shape_of_codes_result.json"}},
        {"color_of_codes", "codes top-1", {"color_of_codes_result.json"}}}}};
  for (const auto& [stage, tasks] : expected) {
    SCOPED_TRACE(stage);
    const StageResult result = Result(stage);
    EXPECT_EQ(result.tasks_size(), static_cast<int>(tasks.size()));
    EXPECT_EQ(result.nonfinite_steps(), 0);
    EXPECT_EQ(result.bad_samples(), 0);
    for (const TaskSummary& task : result.tasks()) {
      for (const Metric& metric : task.metrics()) {
        EXPECT_TRUE(std::isfinite(metric.value()))
            << task.name() << ": " << metric.name();
      }
    }
    for (const LoggedValue& value : result.values()) {
      EXPECT_TRUE(std::isfinite(value.first()) && std::isfinite(value.last()))
          << value.name();
    }
    for (const Expected& task : tasks) {
      Value(result, task.task, task.metric);
      for (const std::string& file : task.files) {
        const auto text = ReadFile(File(stage, file));
        EXPECT_TRUE(text.ok() && !text->empty()) << file;
      }
    }
  }
  // Words are the first thing that is learned.
  const StageResult pretrain = Result("pretrain");
  for (const LoggedValue& value : pretrain.values()) {
    if (value.is_loss() && absl::StartsWith(value.name(), "mlm")) {
      EXPECT_LT(value.last(), value.first()) << value.name();
    }
  }
}

TEST_F(Benchmarks, OtherReadersScoreTheFilesToTheSameNumbers) {
  const auto equal = [](const StageResult& result, const std::string& task,
                        const std::string& metric, double scored,
                        double scale = 1) {
    EXPECT_NEAR(Value(result, task, metric), scale * scored, 1e-6)
        << task << ": " << metric;
  };
  const StageResult pretrain = Result("pretrain");
  for (const char* task : {"zero_shot_unseen", "zero_shot_random"}) {
    const std::string printed = Score(
        "retrieval", {File("pretrain", absl::StrCat(task, "_ranking.jsonl"))});
    for (const char* metric :
         {"TR R@1", "IR R@5", "reranked TR R@10", "reranked IR R@1"}) {
      equal(pretrain, task, metric, Scored(printed, metric));
    }
  }
  const StageResult vqa = Result("vqa");
  for (const char* task : {"vqa", "vqa_decoder"}) {
    const std::string printed =
        Score("vqa", {File("vqa", absl::StrCat(task, "_result.json")),
                      Data("v2_easy_vqa_test_annotations.json")});
    equal(vqa, task, "accuracy", Scored(printed, "overall"));
    equal(vqa, task, "accuracy, yes/no", Scored(printed, "yes/no"));
  }
  // [accuracy, confusion counts]
  const std::string entailment = Score(
      "visual_entailment",
      {File("visual_entailment", "visual_entailment_unseen_result.json")});
  double accuracy = NAN;
  ASSERT_TRUE(absl::SimpleAtod(entailment.substr(1, entailment.find(',') - 1),
                               &accuracy))
      << entailment;
  equal(Result("visual_entailment"), "visual_entailment_unseen", "accuracy",
        accuracy, 100);
  // Accuracy and consistency.
  const std::string judged = Score(
      "nlvr2",
      {File("nlvr2", "nlvr2_predictions.csv"), Data("nlvr2_test1.jsonl")});
  const std::vector<std::string> shares =
      absl::StrSplit(judged, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  double judged_right = NAN, consistent = NAN;
  ASSERT_TRUE(shares.size() == 2 &&
              absl::SimpleAtod(shares[0], &judged_right) &&
              absl::SimpleAtod(shares[1], &consistent))
      << judged;
  equal(Result("nlvr2"), "nlvr2", "accuracy", judged_right, 100);
  equal(Result("nlvr2"), "nlvr2", "consistency", consistent, 100);
  const StageResult grounding = Result("grounding");
  const std::string found =
      Score("grounding", {File("grounding", "grounding_result.json"),
                          Data("grounding_test_boxes.json")});
  equal(grounding, "grounding", "hit@0.5", Scored(found, "hit@0.5"));
  equal(grounding, "grounding", "pointing", Scored(found, "pointing"));
  const std::string probed =
      Score("classification", {File("classification", "color_result.json")});
  equal(Result("classification"), "color", "patches top-5",
        Scored(probed, "patches top-5"));
}

// The same command finds all of it done.
TEST_F(Benchmarks, ASecondCallRunsNothingAgain) {
  const std::vector<std::string> stages = {
      "pretrain",          "retrieval",      "vqa",
      "visual_entailment", "nlvr2",          "grounding",
      "captioning",        "classification", "nlvr2_text_assignment"};
  std::map<std::string, std::string> before;
  for (const std::string& stage : stages) {
    before[stage] = *ReadFile(File(stage, "result.pbtxt"));
  }
  testing::internal::CaptureStdout();
  const int code = RunCut({});
  const std::string said = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, kExitDone);
  for (const std::string& stage : stages) {
    EXPECT_TRUE(
        absl::StrContains(said, absl::StrCat("stage ", stage, ": done before")))
        << stage << " in\n"
        << said;
    EXPECT_EQ(before[stage], *ReadFile(File(stage, "result.pbtxt"))) << stage;
  }
}

// The sets are made so that neither the text nor the images alone tell
// anything: whatever such a model answers, its accuracy is that of guessing.
// Both arms start from the pretraining that is there.
TEST_F(Benchmarks, WithoutImageOrTextAccuracyIsChance) {
  for (const char* arm : {"text_only", "image_only"}) {
    SCOPED_TRACE(arm);
    ASSERT_EQ(
        RunCut({absl::StrCat("--overlay=", Runfile(absl::StrCat(
                                               "configs/ablations/benchmarks/",
                                               arm, ".pbtxt"))),
                absl::StrCat("--merge=name: '", arm, "'"),
                "--reuse=runs/benchmarks_small",
                "--stages=visual_entailment,nlvr2"}),
        kExitDone);
    EXPECT_FALSE(PathExists(Folder(absl::StrCat("runs/", arm, "/pretrain"))));
    const StageResult entailment = Result("visual_entailment", arm);
    const StageResult nlvr2 = Result("nlvr2", arm);
    // Equal inputs may round to different answers only where two labels tie.
    for (const char* task : {"visual_entailment", "visual_entailment_unseen"}) {
      EXPECT_NEAR(Value(entailment, task, "accuracy"), 100.0 / 3, 1) << task;
    }
    for (const char* task : {"nlvr2", "nlvr2_unseen"}) {
      EXPECT_NEAR(Value(nlvr2, task, "accuracy"), 50, 1) << task;
    }
  }
}

}  // namespace
}  // namespace semvq
