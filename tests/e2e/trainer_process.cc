#include "tests/e2e/trainer_process.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

}  // namespace

std::string* const TrainerProcess::tiny_ = new std::string;

void TrainerProcess::SetUpTestSuite() {
  ASSERT_TRUE(WriteShapes(Data()).ok());
  auto tiny = ReadFile(Runfile("tests/e2e/tiny.pbtxt"));
  ASSERT_TRUE(tiny.ok()) << tiny.status();
  *tiny_ = *tiny;
}

void TrainerProcess::SetUp() {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  folder_ = JoinPath(testing::TempDir(), info->name());
  ASSERT_TRUE(RemoveTree(folder_).ok());
  Write("tiny.pbtxt", *tiny_);
}

std::string TrainerProcess::Data() {
  return JoinPath(testing::TempDir(), "shapes");
}

void TrainerProcess::Write(const std::string& name, const std::string& text) {
  const std::string path = JoinPath(folder_, name);
  ASSERT_TRUE(MakeDirectories(DirName(path)).ok());
  const absl::Status status = AtomicWriteFile(path, text);
  ASSERT_TRUE(status.ok()) << status;
}

std::string TrainerProcess::Read(const std::string& name) {
  auto text = ReadFile(JoinPath(folder_, name));
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

ProcessResult TrainerProcess::Train(std::vector<std::string> arguments,
                                    ProcessOptions options,
                                    const std::string& where) {
  const std::string folder = JoinPath(folder_, where);
  EXPECT_TRUE(MakeDirectories(folder).ok());
  arguments.insert(arguments.begin(), Runfile("trainer/trainer"));
  options.environment["BUILD_WORKING_DIRECTORY"] = folder;
  options.environment.emplace("E2E_DATA", Data());
  return RunProcess(arguments, options);
}

std::vector<std::string> TrainerProcess::Pretrain(const std::string& more) {
  return {"--config=" + JoinPath(folder_, "tiny.pbtxt"),
          "--merge=stages { name: 'vqa' remove: true } "
          "stages { name: 'pretrain' with { trainer { steps: 12 } "
          "tasks { name: 'retrieval' remove: true } } } "
          "logging { every: 1 gradient_share_every: 4 } "
          "checkpoint { every: 1 keep: 100 } trainer { accumulation: 1 }",
          "--merge=" + more};
}

std::string TrainerProcess::Checkpoint(const std::string& where, int step) {
  return absl::StrCat(where, "/runs/tiny/pretrain/checkpoints/step_",
                      absl::Dec(step, absl::kZeroPad8));
}

ProcessOptions TrainerProcess::SignalAt(int number, int step,
                                        const std::string& where) {
  ProcessOptions options;
  const std::string path = JoinPath(folder_, Checkpoint(where, step));
  options.signal = [number, path] { return PathExists(path) ? number : 0; };
  return options;
}

std::string TrainerProcess::Metrics(const std::string& where) {
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

void TrainerProcess::ExpectSameRun(const std::string& a, const std::string& b) {
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

}  // namespace semvq
