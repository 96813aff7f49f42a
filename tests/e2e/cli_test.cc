// The trainer as a process: what it says and leaves behind when its input is
// bad, and which stages it runs.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"
#include "tests/e2e/trainer_process.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

class Cli : public TrainerProcess {};

TEST_F(Cli, ReportsEveryConfigErrorAtOnceWithPathAndLine) {
  Write(
      "bad.pbtxt",
      absl::StrReplaceAll(
          Read("tiny.pbtxt"),
          {{"warmup_steps: 5", "warm_steps: 5"},
           {"semvq.ReconstructionConfig", "semvq.NoSuchConfig"},
           {"vocab_size: 60", "vocab_size: \"many\""},
           {"CrossFusionConfig] {", "CrossFusionConfig] { dim: 48"},
           {"RetrievalConfig] {", "RetrievalConfig] { contrastive: \"nobody\""},
           {"mask_sep: false", "mask_probability: 1.5"}}));
  const ProcessResult result =
      Train({"--config=" + JoinPath(folder_, "bad.pbtxt")});
  EXPECT_EQ(result.code, kBadInput);
  const std::string text = Read("bad.pbtxt");
  const auto expect = [&](const std::string& place, const std::string& what) {
    const size_t at = text.find(place);
    ASSERT_NE(at, std::string::npos) << place;
    const std::string where = absl::StrCat(
        "bad.pbtxt:", 1 + std::count(text.begin(), text.begin() + at, '\n'));
    bool found = false;
    for (absl::string_view line : absl::StrSplit(result.output, '\n')) {
      found |= absl::StrContains(line, where) && absl::StrContains(line, what);
    }
    EXPECT_TRUE(found) << where << " ... " << what << " in\n" << result.output;
  };
  expect("warm_steps", "warm_steps");
  expect("NoSuchConfig", "NoSuchConfig");
  expect("\"many\"", "text.sentencepiece.vocab_size");
  expect("dim: 48", "encoders[\"fusion\"].config");
  expect("\"nobody\"", "tasks[\"retrieval\"].config.contrastive");
  expect("mask_probability", "objectives[\"mlm\"].config.mask_probability");
  EXPECT_SAYS(result, "semvq.ItmConfig");  // The types there are.
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs")));
}

TEST_F(Cli, WrongArgumentsAndFilesAreBadInput) {
  const std::string config = "--config=" + JoinPath(folder_, "tiny.pbtxt");
  for (const auto& [arguments, says] :
       std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{}, "--config is missing"},
           {{config, "--stepz=3"}, "--stepz"},
           {{config, "--mode=fly"}, "expected train, eval, validate or plan"},
           {{config, "--reuse=x", "--mode=eval"}, "--reuse goes with"},
           {{"--config=nowhere.pbtxt"}, "nowhere.pbtxt"},
           {{config, "--overlay=nowhere.pbtxt"}, "nowhere.pbtxt"},
           {{config, "--merge=trainer {"}, "--merge #1:1"},
           {{config, "--merge=trainer { stepz: 1 }"}, "stepz"}}) {
    const ProcessResult result = Train(arguments);
    EXPECT_EQ(result.code, kBadInput) << result.output;
    EXPECT_SAYS(result, says);
  }
  Write("binary.pbtxt", std::string("\0\xff\x80{{{\n\x1b", 8));
  EXPECT_EQ(Train({"--config=" + JoinPath(folder_, "binary.pbtxt")}).code,
            kBadInput);
  const ProcessResult valid = Train({config, "--mode=validate"});
  EXPECT_EQ(valid.code, kDone) << valid.output;
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs")));
}

TEST_F(Cli, MissingDataIsNamedFileByFile) {
  ProcessOptions options;
  options.environment["E2E_DATA"] = JoinPath(folder_, "nothing");
  const ProcessResult result =
      Train({"--config=" + JoinPath(folder_, "tiny.pbtxt")}, options);
  EXPECT_EQ(result.code, kBadInput);
  EXPECT_SAYS(result, "nothing/pairs.json");
  EXPECT_SAYS(result, "nothing/vqa.json");
  EXPECT_SAYS(result, "nothing/answer_list.json");
  EXPECT_SAYS(result, "quickstart");
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs")));
}

// As under `bazel run`, which starts the trainer in another folder.
TEST_F(Cli, RelativePathsStartWhereTheCommandWasCalled) {
  ASSERT_TRUE(WriteShapes(JoinPath(folder_, "data")).ok());
  ProcessOptions options;
  options.environment["E2E_DATA"] = "data";
  const ProcessResult result = Train(
      Pretrain("stages { name: 'pretrain' with { trainer { steps: 1 } } }"),
      options);
  EXPECT_EQ(result.code, kDone) << result.output;
  EXPECT_TRUE(PathExists(JoinPath(folder_, Checkpoint(".", 1))));
}

// Weights that do not fit or are no weights: every kind is named, with the
// file, before anything is trained.
TEST_F(Cli, BadWeightsFiles) {
  const auto entry = [](const std::string& name, const std::string& dtype,
                        int size, int begin, int end) {
    return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[",
                        size, "],\"data_offsets\":[", begin, ",", end, "]}");
  };
  const auto file = [](const std::string& header, int data,
                       uint64_t length = 0) {
    if (length == 0) length = header.size();
    std::string out(8, '\0');
    for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(length >> (8 * i));
    return absl::StrCat(out, header, std::string(data, '\0'));
  };
  const std::string weight = "image.norm.weight", bias = "image.norm.bias";
  const std::string good =
      absl::StrCat("{", entry(weight, "F32", 32, 0, 128), ",",
                   entry(bias, "F32", 32, 128, 256), "}");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {file(absl::StrCat("{", entry(weight, "F32", 16, 0, 64), "}"), 64),
       "image.norm.weight [32] Float from image.norm.weight [16] Float"},
      {file(absl::StrCat("{", entry(weight, "I64", 32, 0, 256), "}"), 256),
       "of another shape or type (1): image.norm.weight"},
      {file(good, 200), "past the end"},
      {file(good, 0).substr(0, 60), "truncated"},
      {"", "truncated"},
      {file(absl::StrCat("{", entry(weight, "F32", 32, 0, 128), ",",
                         entry(weight, "F32", 32, 128, 256), "}"),
            256),
       "two entries of this name"},
      {file(absl::StrCat("{", entry(weight, "F32", 32, 0, 128), ",",
                         entry(bias, "F32", 32, 64, 192), "}"),
            192),
       "overlaps tensor \"image.norm.weight\""},
      {file(good, 256, 1'000'000'000'000), "a header of 1000000000000 bytes"},
  };
  const auto train = [&](const std::string& contents) {
    Write("weights.safetensors", contents);
    return Train(Pretrain(absl::StrCat(
        "stages { name: 'pretrain' with { trainer { steps: 1 } init_from { "
        "path: '",
        JoinPath(folder_, "weights.safetensors"),
        "' allow_missing: '.*' } } }")));
  };
  for (const auto& [contents, says] : cases) {
    const ProcessResult result = train(contents);
    EXPECT_EQ(result.code, kFailed) << says;
    EXPECT_SAYS(result, says);
    EXPECT_SAYS(result, "weights.safetensors");
    EXPECT_FALSE(PathExists(JoinPath(folder_, Checkpoint(".", 1))));
  }
  const ProcessResult result = train(file(good, 256));
  EXPECT_EQ(result.code, kDone) << result.output;
  EXPECT_SAYS(result, "parameters loaded: 2 of");
}

TEST_F(Cli, DataSetSmallerThanABatch) {
  const ProcessResult result = Train(Pretrain("trainer { batch_size: 200 }"));
  EXPECT_EQ(result.code, kFailed);
  EXPECT_SAYS(result, "48");
  EXPECT_SAYS(result, "200");
  EXPECT_SAYS(result, "smaller than a batch");
  EXPECT_SAYS(result, "trainer { batch_size }");
}

TEST_F(Cli, OutputFolderThatCannotBe) {
  Write("file", "not a folder");
  const ProcessResult result = Train(Pretrain(absl::StrCat(
      "checkpoint { folder: '", JoinPath(folder_, "file/run"), "' }")));
  EXPECT_EQ(result.code, kFailed);
  EXPECT_SAYS(result, "file/run");
  EXPECT_SAYS(result, "folder");
  EXPECT_EQ(Read("file"), "not a folder");
}

TEST_F(Cli, FolderOfAnotherExperiment) {
  ASSERT_EQ(Train(Pretrain()).code, kDone);
  const std::string before = Read(Checkpoint(".", 12) + "/model.safetensors");
  const std::string experiment = Read("runs/tiny/experiment.pbtxt");
  const ProcessResult result = Train(Pretrain("optimizer { lr: 2e-3 }"));
  EXPECT_EQ(result.code, kFailed);
  EXPECT_SAYS(result, "another experiment");
  EXPECT_SAYS(result, "--fresh=pretrain");
  EXPECT_TRUE(before == Read(Checkpoint(".", 12) + "/model.safetensors"));
  EXPECT_EQ(experiment, Read("runs/tiny/experiment.pbtxt"));
  // As the message says.
  std::vector<std::string> fresh = Pretrain("optimizer { lr: 2e-3 }");
  fresh.push_back("--fresh=pretrain");
  EXPECT_EQ(Train(fresh).code, kDone);
  EXPECT_FALSE(before == Read(Checkpoint(".", 12) + "/model.safetensors"));
}

TEST_F(Cli, AFinishedStageIsNotRunAgain) {
  ASSERT_EQ(Train(Pretrain()).code, kDone);
  const std::string result = Read("runs/tiny/pretrain/result.pbtxt");
  const ProcessResult again = Train(Pretrain());
  EXPECT_EQ(again.code, kDone) << again.output;
  EXPECT_SAYS(again, "done before");
  EXPECT_EQ(result, Read("runs/tiny/pretrain/result.pbtxt"));
}

// The others keep what they have in the run folder, and their files are not
// looked for.
TEST_F(Cli, OnlyTheStagesAskedFor) {
  const auto train = [this](std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "--config=" + JoinPath(folder_, "tiny.pbtxt"),
        "--merge=stages { name: 'pretrain' with { trainer { steps: 3 } } } "
        "stages { name: 'vqa' with { trainer { steps: 2 } } }"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Train(arguments);
  };
  const std::string no_answers =
      "--merge=stages { name: 'vqa' with { tasks { name: 'vqa' config { "
      "[type.googleapis.com/semvq.VqaConfig] { answer_list: 'nowhere.json' } "
      "} } } }";
  for (const char* flag : {"--stages=vqua", "--fresh=vqua"}) {
    const ProcessResult result = train({flag});
    EXPECT_EQ(result.code, kBadInput);
    EXPECT_SAYS(result, "did you mean \"vqa\"?");
  }
  ASSERT_EQ(train({"--stages=pretrain", no_answers}).code, kDone);
  EXPECT_TRUE(PathExists(JoinPath(folder_, "runs/tiny/pretrain")));
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/tiny/vqa")));

  const ProcessResult missing = train({"--stages=vqa", no_answers});
  EXPECT_EQ(missing.code, kBadInput);
  EXPECT_SAYS(missing, "nowhere.json");

  // From the pretraining that is there; the table has both.
  const ProcessResult both = train({"--stages=vqa"});
  EXPECT_EQ(both.code, kDone) << both.output;
  EXPECT_SAYS(both, "stage pretrain: done before");
  const std::string report = Read("runs/tiny/report.txt");
  EXPECT_TRUE(absl::StrContains(report, "TR R@1")) << report;
  EXPECT_TRUE(absl::StrContains(report, "accuracy")) << report;

  // Evaluated alone, and still in one table with the other.
  const std::string kept = Read("runs/tiny/pretrain/result.pbtxt");
  const ProcessResult again = train({"--stages=vqa", "--mode=eval"});
  EXPECT_EQ(again.code, kDone) << again.output;
  EXPECT_FALSE(absl::StrContains(again.output, "stage pretrain:"));
  EXPECT_EQ(kept, Read("runs/tiny/pretrain/result.pbtxt"));
  EXPECT_TRUE(absl::StrContains(Read("runs/tiny/report.txt"), "TR R@1"));
}

// An arm of an ablation: its later stages start from another run's pretraining,
// which stays as and where it is.
TEST_F(Cli, AnotherRunsStagesAreReused) {
  const auto train = [this](const std::string& merge,
                            const std::string& flag = "--mode=train") {
    return Train({"--config=" + JoinPath(folder_, "tiny.pbtxt"),
                  "--merge=stages { name: 'pretrain' with { trainer { steps: 3 "
                  "} } } stages { name: 'vqa' with { trainer { steps: 2 } } }",
                  "--merge=" + merge, flag});
  };
  const auto arm = [](const std::string& name) {
    return absl::StrCat("name: '", name,
                        "' stages { name: 'vqa' with { encoders { name: "
                        "'image' blank_input: true } } }");
  };
  const ProcessResult nowhere = train(arm("arm"), "--reuse=runs/tiny");
  EXPECT_EQ(nowhere.code, kFailed);
  EXPECT_SAYS(nowhere, "pretrain: not there");
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/arm")));

  ASSERT_EQ(train("").code, kDone);
  const std::string kept = Read("runs/tiny/pretrain/result.pbtxt");
  const ProcessResult reused = train(arm("arm"), "--reuse=runs/tiny");
  EXPECT_EQ(reused.code, kDone) << reused.output;
  EXPECT_SAYS(reused, "stage pretrain: done before");
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/arm/pretrain")));
  EXPECT_EQ(kept, Read("runs/tiny/pretrain/result.pbtxt"));
  EXPECT_TRUE(Read("runs/tiny/tokenizer.model") ==
              Read("runs/arm/tokenizer.model"));
  // Nothing but where the pretraining is differs from a run that repeats it.
  const std::string reused_model =
      Read("runs/arm/vqa/checkpoints/step_00000002/model.safetensors");
  ASSERT_EQ(train(arm("alone")).code, kDone);
  EXPECT_TRUE(
      reused_model ==
      Read("runs/alone/vqa/checkpoints/step_00000002/model.safetensors"));

  // Another pretraining is no start for it.
  const ProcessResult other =
      train(arm("other") + " seed: 7", "--reuse=runs/tiny");
  EXPECT_EQ(other.code, kFailed);
  EXPECT_SAYS(other, "pretrain: config hash");
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs/other")));
}

}  // namespace
}  // namespace semvq
