// --mode=plan as a whole: what it prints of a small experiment.

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"
#include "tests/shapes.h"
#include "trainer/run.h"

namespace semvq {
namespace {

class Plan : public testing::Test {
 protected:
  void SetUp() override {
    const std::string shapes = JoinPath(testing::TempDir(), "plan_shapes");
    ASSERT_TRUE(WriteShapes(shapes).ok());
    setenv("E2E_DATA", shapes.c_str(), 1);
    at::set_num_threads(1);
    folder_ = JoinPath(testing::TempDir(), "plan");
    ASSERT_TRUE(RemoveTree(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    setenv("BUILD_WORKING_DIRECTORY", folder_.c_str(), 1);
  }

  // What the plan of tests/e2e/tiny.pbtxt with `more` prints; errors_ gets what
  // goes to stderr.
  std::string Print(const std::string& more) {
    const std::string tiny =
        absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                     std::getenv("TEST_WORKSPACE"), "/tests/e2e/tiny.pbtxt");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunTrainer(
        {"trainer", "--config=" + tiny, "--mode=plan", "--merge=" + more});
    const std::string out = testing::internal::GetCapturedStdout();
    errors_ = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, 0) << out << errors_;
    return out;
  }

  // The last number of the first line that begins with `name`.
  static double Last(const std::string& text, const std::string& name) {
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      if (!absl::StartsWith(line, name + "  ")) continue;
      const std::vector<std::string> words =
          absl::StrSplit(line, ' ', absl::SkipEmpty());
      double value = 0;
      EXPECT_TRUE(absl::SimpleAtod(words.back(), &value)) << line;
      return value;
    }
    ADD_FAILURE() << "no line \"" << name << "\" in\n" << text;
    return 0;
  }

  std::string folder_, errors_;
};

TEST_F(Plan, CountsAndStepsEveryStage) {
  const std::string all = Print("");
  // The experiment's summary names both stages, then come their plans.
  const std::vector<std::string> stages = absl::StrSplit(all, "\nstage ");
  ASSERT_EQ(stages.size(), 5u) << all;
  for (const std::string& text : {stages[3], stages[4]}) {
    SCOPED_TRACE(text);
    for (const char* part :
         {"instance", "image", "text", "fusion", "codebook",
          "weights (float32)", "optimizer (float32)",
          "activations, batch 12, float32", "H100 SXM", "assumed: 35 %",
          "images/s", "peak memory of the process", "samples (counted)"})
      EXPECT_TRUE(absl::StrContains(text, part)) << part;
    // No teacher; each product of the forward has two in the backward, but for
    // the gradients of pixels.
    const double forward = Last(text, "forward");
    EXPECT_GT(forward, 0);
    EXPECT_LT(Last(text, "backward"), 2.05 * forward);
    EXPECT_GT(Last(text, "backward"), 1.5 * forward);
    EXPECT_FALSE(absl::StrContains(text, "teacher  "));
  }
  EXPECT_TRUE(absl::StrContains(stages[3], "reconstruction"));
  EXPECT_FALSE(absl::StrContains(stages[4], "reconstruction"));
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs"))) << "it wrote something";
}

TEST_F(Plan, TheTeacherCostsAForwardAndItsWeights) {
  const std::string only =
      "stages { name: 'vqa' remove: true } teacher { enabled: true } ";
  const std::string text = Print(only);
  const std::string name = "forward without gradient (teacher)";
  EXPECT_GT(Last(text, name), 0.2 * Last(text, "forward"));
  EXPECT_TRUE(absl::StrContains(text, "\nteacher  ")) << text;
  const std::string without = Print("stages { name: 'vqa' remove: true }");
  EXPECT_LT(Last(without, name), 0.02 * Last(without, "forward"));
}

TEST_F(Plan, CheckpointingComputesTheForwardAgain) {
  const std::string stage = "stages { name: 'vqa' remove: true } ";
  const std::string plain = Print(stage);
  const std::string again = Print(
      stage +
      "encoders { name: 'image' config { [type.googleapis.com/semvq.VitConfig] "
      "{ activation_checkpointing: true } } }");
  EXPECT_EQ(Last(plain, "forward"), Last(again, "forward"));
  EXPECT_GT(Last(again, "backward"), Last(plain, "backward"));
}

TEST_F(Plan, AnswersAreExpectedWhereTheirListIsNotThere) {
  const auto plan = [this](const std::string& more) {
    const std::string all = Print(absl::StrCat(
        "stages { name: 'vqa' with { tasks { name: 'vqa' config { "
        "[type.googleapis.com/semvq.VqaConfig] { answer_list: 'nowhere.json' ",
        more, " } } } } }"));
    return std::string(all.substr(all.rfind("\nstage vqa")));
  };
  const std::string known = plan("expected_answers: 70");
  EXPECT_TRUE(absl::StrContains(known, "images/s")) << known;
  const std::string unknown = plan("");
  EXPECT_TRUE(absl::StrContains(unknown, "is not planned")) << unknown;
  EXPECT_TRUE(absl::StrContains(unknown, "nowhere.json")) << unknown;
}

TEST_F(Plan, SamplesAreExpectedWhereTheFilesAreNotThere) {
  const std::string stage =
      "stages { name: 'vqa' remove: true } "
      "stages { name: 'pretrain' with { trainer { epochs: 3 } } } ";
  const std::string missing = Print(
      stage +
      "data { streams { name: 'pairs' expected_samples: 2400 source { "
      "[type.googleapis.com/semvq.AlbefJsonConfig] { path: 'nowhere.json' } } "
      "} }");
  // 2,400 samples in batches of 12 and two parts.
  EXPECT_TRUE(absl::StrContains(missing, "training: 300 steps of 24 images"))
      << missing;
  EXPECT_TRUE(absl::StrContains(missing, "2400 samples (expected_samples"));
  // A list that lost half its records is reported.
  Print(stage + "data { streams { name: 'pairs' expected_samples: 2400 } }");
  EXPECT_TRUE(absl::StrContains(errors_, "expected_samples is 2400"))
      << errors_;
}

}  // namespace
}  // namespace semvq
