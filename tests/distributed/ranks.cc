#include "tests/distributed/ranks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/distributed/testing.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

void RedirectTo(const std::string& path, int fd) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0 || dup2(file, fd) < 0) _exit(126);
}

std::string Contents(const std::string& path) {
  auto text = ReadFile(path);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

}  // namespace

std::string Runfile(const std::string& path) {
  if (const char* folder = std::getenv("TEST_SRCDIR")) {
    return absl::StrCat(folder, "/", std::getenv("TEST_WORKSPACE"), "/", path);
  }
  // Started by hand.
  char self[PATH_MAX] = "";
  EXPECT_GT(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
  return absl::StrCat(self, ".runfiles/semvq/", path);
}

Process::Process(const std::vector<std::string>& arguments,
                 const std::map<std::string, std::string>& environment,
                 const std::string& prefix)
    : prefix_(prefix) {
  pid_ = fork();
  if (pid_ != 0) return;
  RedirectTo("/dev/null", STDIN_FILENO);
  RedirectTo(prefix + ".out", STDOUT_FILENO);
  RedirectTo(prefix + ".err", STDERR_FILENO);
  for (const auto& [name, value] : environment)
    setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const std::string& a : arguments)
    argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  _exit(127);
}

Process::Process(Process&& other)
    : pid_(other.pid_),
      prefix_(std::move(other.prefix_)),
      ended_(other.ended_),
      status_(other.status_) {
  other.ended_ = true;
}

Process::~Process() {
  if (!Running()) return;
  Signal(SIGKILL);
  Wait(60);
}

bool Process::Running() {
  if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
  return !ended_;
}

void Process::Signal(int number) {
  if (Running()) kill(pid_, number);
}

bool Process::Wait(double seconds) {
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (Running()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    usleep(2000);
  }
  return true;
}

RankEnd Process::End() {
  RankEnd end;
  if (Running()) return end;
  if (WIFEXITED(status_)) end.code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) end.killed = WTERMSIG(status_);
  end.output = Contents(prefix_ + ".out") + Contents(prefix_ + ".err");
  return end;
}

std::map<std::string, std::string> RankEnvironment(int64_t rank, int64_t size,
                                                   int port) {
  return {{"RANK", absl::StrCat(rank)},
          {"LOCAL_RANK", absl::StrCat(rank)},
          {"WORLD_SIZE", absl::StrCat(size)},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", absl::StrCat(port)}};
}

TinyRun::TinyRun(const std::string& folder) : folder_(folder) {
  EXPECT_TRUE(RemoveTree(folder_).ok());
  EXPECT_TRUE(MakeDirectories(folder_).ok());
  const absl::Status status = WriteShapes(JoinPath(folder_, "shapes"));
  EXPECT_TRUE(status.ok()) << status;
}

std::vector<std::string> TinyRun::Command(const std::string& more) const {
  std::vector<std::string> command = {
      Runfile("trainer/trainer"), "--config=" + Runfile("tests/e2e/tiny.pbtxt"),
      "--merge=stages { name: 'vqa' remove: true } "
      "stages { name: 'pretrain' with { trainer { steps: 12 } "
      "tasks { name: 'retrieval' remove: true } } } "
      "logging { every: 1 tensorboard: false gradient_share_every: 0 } "
      "checkpoint { every: 1 keep: 100 } trainer { accumulation: 1 }",
      absl::StrCat("--merge=trainer { batch_size: ", kBatch, " }"),
      "--merge=" + more};
  command.insert(command.end(), flags.begin(), flags.end());
  return command;
}

std::map<std::string, std::string> TinyRun::Environment(
    const std::string& where) const {
  const std::string folder = JoinPath(folder_, where);
  EXPECT_TRUE(MakeDirectories(folder).ok());
  return {{"BUILD_WORKING_DIRECTORY", folder},
          {"E2E_DATA", JoinPath(folder_, "shapes")},
          {"OMP_NUM_THREADS", "1"}};
}

Process TinyRun::StartRank(
    int64_t rank, int64_t ranks, int port, const std::string& where,
    const std::string& more,
    const std::map<std::string, std::string>& variables) const {
  std::map<std::string, std::string> environment = variables;
  for (const auto& [name, value] : Environment(where))
    environment.emplace(name, value);
  // One rank is a process alone.
  if (ranks > 1) {
    for (const auto& [name, value] : RankEnvironment(rank, ranks, port))
      environment.emplace(name, value);
  }
  return Process(Command(more), environment,
                 JoinPath(folder_, absl::StrCat(where, ".rank", rank)));
}

std::vector<Process> TinyRun::Start(int64_t ranks, const std::string& where,
                                    const std::string& more) const {
  const int port = FreePort();
  std::vector<Process> processes;
  for (int64_t r = 0; r < ranks; ++r)
    processes.push_back(StartRank(r, ranks, port, where, more));
  return processes;
}

std::vector<RankEnd> TinyRun::Run(int64_t ranks, const std::string& where,
                                  const std::string& more,
                                  double seconds) const {
  std::vector<RankEnd> ends;
  for (Process& process : Start(ranks, where, more)) {
    EXPECT_TRUE(process.Wait(seconds)) << "rank " << ends.size();
    ends.push_back(process.End());
  }
  return ends;
}

std::string TinyRun::RunFolder(const std::string& where) const {
  return JoinPath(folder_, absl::StrCat(where, "/runs/tiny"));
}

int64_t TinyRun::NewestStep(const std::string& where) const {
  auto names =
      ListDirectory(JoinPath(RunFolder(where), "pretrain/checkpoints"));
  int64_t newest = 0;
  if (!names.ok()) return newest;
  for (const std::string& name : *names) {
    int64_t step = 0;
    if (absl::StartsWith(name, "step_") &&
        absl::SimpleAtoi(name.substr(5), &step)) {
      newest = std::max(newest, step);
    }
  }
  return newest;
}

bool TinyRun::Saving(const std::string& where) const {
  auto names =
      ListDirectory(JoinPath(RunFolder(where), "pretrain/checkpoints"));
  return names.ok() &&
         std::any_of(names->begin(), names->end(), [](const std::string& n) {
           return !absl::StartsWith(n, "step_") &&
                  !absl::StrContains(n, "lock");
         });
}

std::string TinyRun::CheckpointFolder(const std::string& where,
                                      int64_t step) const {
  return JoinPath(RunFolder(where),
                  absl::StrCat("pretrain/checkpoints/step_",
                               absl::Dec(step, absl::kZeroPad8)));
}

std::string TinyRun::State(const std::string& where, int64_t step) const {
  const std::string checkpoint = CheckpointFolder(where, step);
  auto files = ListDirectory(checkpoint);
  EXPECT_TRUE(files.ok()) << files.status();
  if (!files.ok()) return "";
  std::string state;
  for (const std::string& file : *files) {
    if (!absl::EndsWith(file, ".safetensors")) continue;
    absl::StrAppend(&state, file, " ",
                    Sha256Hex(Contents(JoinPath(checkpoint, file))), "\n");
  }
  for (absl::string_view line : absl::StrSplit(
           Contents(JoinPath(RunFolder(where), "pretrain/metrics.jsonl")),
           '\n')) {
    std::vector<std::string> fields;
    for (absl::string_view field : absl::StrSplit(line, ',')) {
      if (!absl::StrContains(field, "time") &&
          !absl::StrContains(field, "second")) {
        fields.emplace_back(field);
      }
    }
    absl::StrAppend(&state, absl::StrJoin(fields, ","), "\n");
  }
  return state;
}

}  // namespace semvq
