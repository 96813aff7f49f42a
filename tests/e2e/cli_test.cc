// The trainer as a process: what it says and leaves behind when its input is
// bad, and that whatever stops it costs nothing.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/checkpoint.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tests/e2e/process.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

constexpr int kDone = 0, kFailed = 1, kBadInput = 2, kStopped = 3;

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

class Cli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(WriteShapes(Data()).ok());
    auto tiny = ReadFile(Runfile("tests/e2e/tiny.pbtxt"));
    ASSERT_TRUE(tiny.ok()) << tiny.status();
    *tiny_ = *tiny;
  }

  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = JoinPath(testing::TempDir(), info->name());
    ASSERT_TRUE(RemoveTree(folder_).ok());
    Write("tiny.pbtxt", *tiny_);
  }

  static std::string Data() { return JoinPath(testing::TempDir(), "shapes"); }

  void Write(const std::string& name, const std::string& text) {
    const std::string path = JoinPath(folder_, name);
    ASSERT_TRUE(MakeDirectories(DirName(path)).ok());
    const absl::Status status = AtomicWriteFile(path, text);
    ASSERT_TRUE(status.ok()) << status;
  }

  std::string Read(const std::string& name) {
    auto text = ReadFile(JoinPath(folder_, name));
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? *text : "";
  }

  // Called from `where` in the test's folder, where the results go to as well.
  ProcessResult Train(std::vector<std::string> arguments,
                      ProcessOptions options = {},
                      const std::string& where = ".") {
    const std::string folder = JoinPath(folder_, where);
    EXPECT_TRUE(MakeDirectories(folder).ok());
    arguments.insert(arguments.begin(), Runfile("trainer/trainer"));
    options.environment["BUILD_WORKING_DIRECTORY"] = folder;
    options.environment.emplace("E2E_DATA", Data());
    return RunProcess(arguments, options);
  }

  // The pretraining stage alone, saved after every step.
  std::vector<std::string> Pretrain(const std::string& more = "") {
    return {"--config=" + JoinPath(folder_, "tiny.pbtxt"),
            "--merge=stages { name: 'vqa' remove: true } "
            "stages { name: 'pretrain' with { trainer { steps: 12 } "
            "tasks { name: 'retrieval' remove: true } } } "
            "logging { every: 1 gradient_share_every: 4 } "
            "checkpoint { every: 1 keep: 100 } trainer { accumulation: 1 }",
            "--merge=" + more};
  }

  static std::string Checkpoint(const std::string& where, int step) {
    return absl::StrCat(where, "/runs/tiny/pretrain/checkpoints/step_",
                        absl::Dec(step, absl::kZeroPad8));
  }

  // Sends a signal once the checkpoint of `step` is there.
  ProcessOptions SignalAt(int number, int step,
                          const std::string& where = ".") {
    ProcessOptions options;
    const std::string path = JoinPath(folder_, Checkpoint(where, step));
    options.signal = [number, path] { return PathExists(path) ? number : 0; };
    return options;
  }

  // Lines of the log without what measures time.
  std::string Metrics(const std::string& where) {
    std::vector<std::string> lines;
    for (absl::string_view line : absl::StrSplit(
             Read(where + "/runs/tiny/pretrain/metrics.jsonl"), '\n')) {
      std::vector<std::string> fields;
      for (absl::string_view field : absl::StrSplit(line, ',')) {
        if (!absl::StrContains(field, "time") &&
            !absl::StrContains(field, "second")) {
          fields.emplace_back(field);
        }
      }
      lines.push_back(absl::StrJoin(fields, ","));
    }
    return absl::StrJoin(lines, "\n");
  }

  void ExpectSameRun(const std::string& a, const std::string& b) {
    const std::string left = Checkpoint(a, 12), right = Checkpoint(b, 12);
    auto files = ListDirectory(JoinPath(folder_, left));
    ASSERT_TRUE(files.ok()) << files.status();
    int compared = 0;
    for (const std::string& file : *files) {
      if (!absl::EndsWith(file, ".safetensors")) continue;
      ++compared;
      EXPECT_TRUE(Read(left + "/" + file) == Read(right + "/" + file)) << file;
    }
    EXPECT_GE(compared, 3);
    const std::string log = Metrics(a);
    EXPECT_EQ(log, Metrics(b));
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 12);
  }

  std::string folder_;

 private:
  static std::string* const tiny_;
};
std::string* const Cli::tiny_ = new std::string;

#define EXPECT_SAYS(result, text) \
  EXPECT_TRUE(absl::StrContains((result).output, text)) << (result).output

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

TEST_F(Cli, FullDiskLeavesTheLastGoodCheckpoint) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 3, "b"), "b").code, kStopped);
  ProcessOptions full;
  full.max_file_size = 30000;
  const ProcessResult result = Train(Pretrain(), full, "b");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "file size limit");
  EXPECT_SAYS(result, "earlier checkpoints are untouched");
  // Nothing half-written has a name, and the run goes on when there is room.
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
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

// A kill while the second task is evaluated: the first is not evaluated again,
// and the result is that of a run that nobody disturbed.
TEST_F(Cli, AKilledEvaluationGoesOnAtTheNextTask) {
  const auto task = [](const char* name, int rerank) {
    return absl::StrCat("tasks { name: '", name,
                        "' stream: 'pairs' batch_size: 1 config { "
                        "[type.googleapis.com/semvq.RetrievalConfig] { "
                        "rerank_top_k: ",
                        rerank, " rerank_batch_size: 1 } } } ");
  };
  const std::vector<std::string> arguments =
      Pretrain(absl::StrCat("stages { name: 'pretrain' with { ",
                            task("first", 0), task("second", 4), "} }"));
  ASSERT_EQ(Train(arguments, {}, "whole").code, kDone);
  const std::string stage = "/runs/tiny/pretrain/";
  ProcessOptions kill;
  const std::string kept =
      JoinPath(folder_, "killed" + stage + "evaluated.pbtxt");
  kill.signal = [kept] { return PathExists(kept) ? SIGKILL : 0; };
  EXPECT_EQ(Train(arguments, kill, "killed").killed, SIGKILL);
  ASSERT_FALSE(
      PathExists(JoinPath(folder_, "killed" + stage + "result.pbtxt")));
  // The mark shows whether the first task's numbers are the kept ones.
  std::string text = Read("killed" + stage + "evaluated.pbtxt");
  ASSERT_TRUE(absl::StrContains(text, "name: \"first\"")) << text;
  ASSERT_FALSE(absl::StrContains(text, "name: \"second\"")) << text;
  Write("killed" + stage + "evaluated.pbtxt",
        absl::StrReplaceAll(text, {{"note: \"", "note: \"kept; "}}));
  const ProcessResult again = Train(arguments, {}, "killed");
  EXPECT_EQ(again.code, kDone) << again.output;
  EXPECT_SAYS(again, "task first: evaluated before the last stop");
  EXPECT_FALSE(absl::StrContains(again.output, "task second: evaluated"));
  EXPECT_FALSE(PathExists(kept));
  // All that the tasks found, without what measures time.
  const auto tasks = [&](const std::string& where) {
    const std::string all = Read(where + stage + "result.pbtxt");
    const size_t begin = all.find("tasks {"), end = all.find("first_step_ms");
    EXPECT_LT(begin, end);
    return all.substr(begin, end - begin);
  };
  EXPECT_EQ(absl::StrReplaceAll(tasks("killed"), {{"kept; ", ""}}),
            tasks("whole"));
  EXPECT_TRUE(absl::StrContains(tasks("killed"), "note: \"kept; "));
}

TEST_F(Cli, DamagedCheckpoints) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  const auto stopped = [&](const std::string& where) {
    EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 4, where), where).code,
              kStopped);
    auto steps = ListDirectory(
        JoinPath(folder_, where + "/runs/tiny/pretrain/checkpoints"));
    EXPECT_TRUE(steps.ok());
    return where + "/runs/tiny/pretrain/checkpoints/" + steps->back();
  };
  // Truncated: the one before is taken, and that is said.
  const std::string truncated = stopped("b");
  const std::string model = Read(truncated + "/model.safetensors");
  Write(truncated + "/model.safetensors", model.substr(0, model.size() / 2));
  ProcessResult result = Train(Pretrain(), {}, "b");
  EXPECT_EQ(result.code, kDone) << result.output;
  EXPECT_SAYS(result, "passing over");
  EXPECT_SAYS(result, "model.safetensors");
  ExpectSameRun("a", "b");

  // Altered in one bit: an error, as are another version and another config.
  const std::string altered = stopped("c");
  std::string flipped = Read(altered + "/model.safetensors");
  const std::string intact = flipped;
  flipped[flipped.size() - 5] ^= 1;
  Write(altered + "/model.safetensors", flipped);
  result = Train(Pretrain(), {}, "c");
  EXPECT_EQ(result.code, kFailed);
  EXPECT_SAYS(result, "model.safetensors");
  EXPECT_TRUE(flipped == Read(altered + "/model.safetensors"));
  Write(altered + "/model.safetensors", intact);

  const std::string manifest = Read(altered + "/manifest.textproto");
  const size_t at = manifest.find("format_version: 1");
  ASSERT_NE(at, std::string::npos) << manifest;
  std::string other = manifest;
  other.replace(at, 17, "format_version: 9");
  // Its last line is the hash of what stands above.
  const size_t body = other.rfind('\n', other.size() - 2) + 1;
  other.replace(other.size() - 65, 64, Sha256Hex(other.substr(0, body)));
  Write(altered + "/manifest.textproto", other);
  result = Train(Pretrain(), {}, "c");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "version");

  // The checkpoint of another config in this one's folder.
  Write(altered + "/manifest.textproto", manifest);
  EXPECT_EQ(Train(Pretrain("seed: 7"), SignalAt(SIGTERM, 4, "d"), "d").code,
            kStopped);
  const std::string marker = Read("c/runs/tiny/pretrain/config_hash");
  Write("d/runs/tiny/pretrain/config_hash", marker);
  result = Train(Pretrain(), {}, "d");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "another experiment");

  EXPECT_EQ(Train(Pretrain(), {}, "c").code, kDone);
  ExpectSameRun("a", "c");
}

TEST_F(Cli, NothingLeftButDamagedCheckpointsIsAnError) {
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 2)).code, kStopped);
  auto steps =
      ListDirectory(JoinPath(folder_, "runs/tiny/pretrain/checkpoints"));
  ASSERT_TRUE(steps.ok());
  for (const std::string& step : *steps) {
    if (!absl::StartsWith(step, "step_")) continue;
    Write(absl::StrCat("runs/tiny/pretrain/checkpoints/", step,
                       "/model.safetensors"),
          "");
  }
  // Starting over in silence would throw the training away.
  const ProcessResult result = Train(Pretrain());
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "model.safetensors");
  EXPECT_SAYS(result, "--fresh=pretrain");
}

// N + M steps equal N steps, a stop, a restart and M steps.
TEST_F(Cli, StoppedRunsGoOnBitByBit) {
  const std::string teacher =
      "teacher { enabled: true momentum: 0.9 } "
      "objectives { name: 'itc' config { [type.googleapis.com/semvq.ItcConfig]"
      " { queue_size: 24 alpha_ramp_steps: 8 } } } ";
  // Draws codes, and hides some of them and of the words, by step and image.
  const std::string bound =
      "quantizers { name: 'codebook' config { "
      "[type.googleapis.com/semvq.GumbelConfig] { num_codes: 16 "
      "temperature_steps: 10 kl_weight_steps: 8 } } } "
      "objectives { name: 'bound' config { "
      "[type.googleapis.com/semvq.SemanticCodebookConfig] { patch_size: 8 "
      "decoder_dim: 16 decoder_depth: 1 prior_dim: 16 prior_depth: 1 } } } ";
  for (const auto& [name, more] :
       std::vector<std::pair<std::string, std::string>>{
           {"plain", ""}, {"teacher", teacher}, {"bound", teacher + bound}}) {
    SCOPED_TRACE(name);
    ASSERT_EQ(Train(Pretrain(more), {}, name).code, kDone);
    const std::string saved = Checkpoint(name, 12);
    EXPECT_EQ(PathExists(JoinPath(folder_, saved + "/teacher.safetensors")),
              name != "plain");
    EXPECT_EQ(absl::StrContains(Read(saved + "/model.safetensors"),
                                "itc.image_queue"),
              name != "plain");
    for (int number : {SIGTERM, SIGINT, SIGKILL}) {
      SCOPED_TRACE(number);
      const std::string where = absl::StrCat(name, number);
      const ProcessResult stopped =
          Train(Pretrain(more), SignalAt(number, 5, where), where);
      if (number == SIGKILL) {
        EXPECT_EQ(stopped.killed, SIGKILL) << stopped.output;
      } else {
        EXPECT_EQ(stopped.code, kStopped) << stopped.output;
        EXPECT_SAYS(stopped, "saved");
      }
      ASSERT_FALSE(PathExists(JoinPath(folder_, Checkpoint(where, 12))));
      const ProcessResult resumed = Train(Pretrain(more), {}, where);
      EXPECT_EQ(resumed.code, kDone) << resumed.output;
      EXPECT_SAYS(resumed, "goes on at step");
      ExpectSameRun(name, where);
    }
  }
}

// As older versions wrote them.
TEST_F(Cli, ACheckpointThatDoesNotSayHowFarTheDataWereRead) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 5, "b"), "b").code, kStopped);
  const std::string root =
      JoinPath(folder_, "b/runs/tiny/pretrain/checkpoints");
  auto newest = FindLatestCheckpoint(root);
  ASSERT_TRUE(newest.ok()) << newest.status();
  auto contents = LoadCheckpoint(*newest);
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_EQ(contents->state.erase("samples"), 1u);
  ASSERT_TRUE(SaveCheckpoint(root, *contents, {}).ok());
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
}

TEST_F(Cli, BadSamplesAreRememberedOverARestart) {
  auto pairs = ReadFile(JoinPath(Data(), "pairs.json"));
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  int gaps = 0;
  for (int i = 0; i < 8; ++i) {
    gaps += absl::StrReplaceAll({{absl::StrCat("images/", i, ".png"),
                                  absl::StrCat("images/gone", i, ".png")}},
                                &*pairs);
  }
  ASSERT_EQ(gaps, 8);
  const std::string path = JoinPath(Data(), "pairs_with_gaps.json");
  ASSERT_TRUE(AtomicWriteFile(path, *pairs).ok());
  const std::vector<std::string> arguments = Pretrain(
      "data { streams { name: 'pairs' source { "
      "[type.googleapis.com/semvq.AlbefJsonConfig] { path: "
      "'${E2E_DATA}/pairs_with_gaps.json' } } } }");
  ASSERT_EQ(Train(arguments, {}, "a").code, kDone);
  const std::string all = Read("a/runs/tiny/pretrain/bad_samples.txt");
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 8) << all;

  // So late that few of them come again after the restart.
  ASSERT_EQ(Train(arguments, SignalAt(SIGTERM, 10, "b"), "b").code, kStopped);
  const ProcessResult resumed = Train(arguments, {}, "b");
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "8 bad samples");
  EXPECT_EQ(Read("b/runs/tiny/pretrain/bad_samples.txt"), all);
}

// As batch systems announce the end of a job.
TEST_F(Cli, APreemptionNoticeSavesAndExits) {
  const ProcessResult stopped = Train(Pretrain(), SignalAt(SIGUSR1, 3));
  EXPECT_EQ(stopped.code, kStopped) << stopped.output;
  EXPECT_SAYS(stopped, "saved; the same command goes on");
  const ProcessResult resumed = Train(Pretrain());
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "goes on at step");
}

TEST_F(Cli, StepsThatAreNotFiniteAreSkippedCountedAndExplained) {
  std::vector<std::string> arguments = Pretrain(
      "optimizer { lr: 1e30 clip_norm: 0 } schedule { warmup_steps: 0 } "
      "trainer { max_nonfinite_steps: 3 }");
  ProcessResult result = Train(arguments, {}, "a");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "step 2 is skipped: ");
  EXPECT_SAYS(result, "3 steps in a row were not finite");
  EXPECT_SAYS(result, "quantizer \"codebook\" got ");
  EXPECT_SAYS(result, "--debug_nonfinite finds where that begins");
  EXPECT_FALSE(absl::StrContains(result.output, "not finite first"));

  arguments.push_back("--debug_nonfinite");
  result = Train(arguments, {}, "b");
  EXPECT_EQ(result.code, kFailed) << result.output;
  // The first product with such weights is in an encoder.
  EXPECT_SAYS(result, "not finite first: view ");
  EXPECT_SAYS(result, "/tokens");
  EXPECT_SAYS(result, "values, the first in row 0");
}

// A rate that explodes: the loss jumps whatever the data are, so that going
// back does not help for long.
TEST_F(Cli, SpikesOfTheLossGoBackAndSkipTheirData) {
  const std::string explode =
      "optimizer { lr: 2 clip_norm: 0 } schedule { warmup_steps: 12 "
      "warmup_lr: 1e-3 min_lr: 1e-3 } stages { name: 'pretrain' with { trainer "
      "{ steps: 40 } } } checkpoint { every: 2 keep: 100 } ";
  const auto spikes = [&](const std::string& more) {
    return Pretrain(absl::StrCat(
        explode, "trainer { loss_spikes { window: 4 steps: 2 ", more, " } }"));
  };
  const auto line = [this](const std::string& where, int number) {
    const std::vector<std::string> lines = absl::StrSplit(Metrics(where), '\n');
    return lines.size() > static_cast<size_t>(number) ? lines[number] : "";
  };
  const ProcessResult reported = Train(spikes(""), {}, "report");
  EXPECT_EQ(reported.code, kDone) << reported.output;
  EXPECT_SAYS(reported, "the loss spiked from step ");
  EXPECT_SAYS(reported, " spikes of the loss");
  EXPECT_FALSE(absl::StrContains(reported.output, "went back"));

  const std::string back = "action: ROLL_BACK max_rollbacks: 1";
  const ProcessResult once = Train(spikes(back), {}, "back");
  EXPECT_EQ(once.code, kFailed) << once.output;
  EXPECT_SAYS(once, "went back from step ");
  EXPECT_SAYS(once, "batches read since then are skipped");
  EXPECT_SAYS(once, "training went back 1 times already");
  const size_t at = once.output.find("to the checkpoint of step ");
  ASSERT_NE(at, std::string::npos);
  const int step = std::atoi(once.output.c_str() + at + 26);
  ASSERT_GE(step, 2);
  // The same until there, and then other data.
  EXPECT_EQ(line("back", step - 1), line("report", step - 1));
  EXPECT_NE(line("back", step), "");
  EXPECT_NE(line("back", step), line("report", step));

  // Killed after it went back and saved, it goes on to the same end.
  ProcessOptions kill;
  const std::string gone = JoinPath(folder_, Checkpoint("killed", step + 2));
  bool before = false, removed = false;
  kill.signal = [&] {
    const bool there = PathExists(gone);
    removed |= before && !there;
    before = there;
    return removed && there ? SIGKILL : 0;
  };
  const ProcessResult killed = Train(spikes(back), kill, "killed");
  EXPECT_EQ(killed.killed, SIGKILL) << killed.output;
  const ProcessResult resumed = Train(spikes(back), {}, "killed");
  EXPECT_EQ(resumed.code, kFailed);
  EXPECT_SAYS(resumed, "training went back 1 times already");
  EXPECT_EQ(Metrics("killed"), Metrics("back"));
}

TEST_F(Cli, DataThatVanishOnTheWay) {
  const std::string data = JoinPath(folder_, "data");
  ASSERT_TRUE(WriteShapes(data).ok());
  const std::string step = JoinPath(folder_, Checkpoint(".", 2));
  ProcessOptions options;
  options.environment["E2E_DATA"] = data;
  bool gone = false;
  options.signal = [&] {
    if (!gone && PathExists(step)) {
      gone = rename(JoinPath(data, "images").c_str(),
                    JoinPath(data, "elsewhere").c_str()) == 0;
    }
    return 0;
  };
  const std::vector<std::string> arguments = Pretrain(
      "stages { name: 'pretrain' with { trainer { steps: 30 } } } "
      "checkpoint { every: 2 }");
  const ProcessResult result = Train(arguments, options);
  ASSERT_TRUE(gone);
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "does not exist");
  EXPECT_SAYS(result, "is saved; the same command goes on from it");

  ASSERT_EQ(rename(JoinPath(data, "elsewhere").c_str(),
                   JoinPath(data, "images").c_str()),
            0);
  options.signal = nullptr;
  const ProcessResult resumed = Train(arguments, options);
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "goes on at step");
  EXPECT_TRUE(PathExists(JoinPath(folder_, Checkpoint(".", 30))));
}

TEST_F(Cli, OutOfMemoryTellsWhatTakesIt) {
  ProcessOptions options;
  options.max_data = int64_t{3} << 29;
  const ProcessResult result =
      Train(Pretrain("data { streams { name: 'pairs' transform { size: 256 } } "
                     "prefetch: 1 } "
                     "encoders { name: 'image' config { "
                     "[type.googleapis.com/semvq.VitConfig] { patch_size: 4 "
                     "image_size: 256 } } } objectives { name: "
                     "'reconstruction' config { "
                     "[type.googleapis.com/semvq.ReconstructionConfig] { "
                     "patch_size: 4 } } } trainer { batch_size: 48 }"),
            options);
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "after 0 steps: out of memory (");
  for (const char* part :
       {"weights (float32)", "optimizer (float32)", "activations, batch 48",
        " an image, by a line", "trainer { batch_size: ", "accumulation: ",
        "bf16: true", "activation_checkpointing", "--mode=plan"}) {
    EXPECT_SAYS(result, part);
  }
}

// Whenever a process dies, what it leaves can be gone on from.
TEST_F(Cli, KilledInTheMiddleOfASave) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  const std::string root =
      JoinPath(folder_, "b/runs/tiny/pretrain/checkpoints");
  for (int attempt = 0; attempt < 4; ++attempt) {
    ProcessOptions options;
    int seen = 0;
    options.signal = [&] {
      // A folder that has no name yet: a save has begun.
      auto names = ListDirectory(root);
      if (!names.ok()) return 0;
      for (const std::string& name : *names) {
        if (!absl::StartsWith(name, "step_") &&
            !absl::StrContains(name, "lock") && ++seen > attempt) {
          return SIGKILL;
        }
      }
      return 0;
    };
    const ProcessResult result = Train(Pretrain(), options, "b");
    ASSERT_TRUE(result.killed == SIGKILL || result.code == kDone)
        << result.output;
    if (result.code == kDone) break;
  }
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
}

}  // namespace
}  // namespace semvq
