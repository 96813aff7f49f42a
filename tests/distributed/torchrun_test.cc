// The trainer started by the real torchrun, on two ranks, and started again by
// it after a kill -9. Needs a Python that has torch, which this repository does
// not install by itself:
//
//   tests/distributed/torchrun.sh

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "tests/distributed/ranks.h"

namespace semvq {
namespace {

// For whatever waits: torchrun alone takes seconds to start.
constexpr double kLong = 250;

class TorchrunTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* python = std::getenv("SEMVQ_PYTHON");
    ASSERT_TRUE(python != nullptr && *python != '\0')
        << "SEMVQ_PYTHON is to name a Python that has torch; "
           "tests/distributed/torchrun.sh does it";
    python_ = python;
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    run_ =
        std::make_unique<TinyRun>(JoinPath(testing::TempDir(), info->name()));
  }

  // Two ranks in `where`.
  Process Torchrun(const std::vector<std::string>& flags,
                   const std::string& where, const std::string& more) {
    std::vector<std::string> command = {
        python_,       "-m",           "torch.distributed.run",
        "--no-python", "--standalone", "--nproc-per-node=2"};
    command.insert(command.end(), flags.begin(), flags.end());
    for (const std::string& part : run_->Command(more)) command.push_back(part);
    return Process(command, run_->Environment(where),
                   JoinPath(run_->folder(), where));
  }

  std::string python_;
  std::unique_ptr<TinyRun> run_;
};

// Processes that `parent` started.
std::vector<pid_t> Children(pid_t parent) {
  std::vector<pid_t> children;
  const std::string path = absl::StrCat("/proc/", parent, "/task");
  auto threads = ListDirectory(path);
  if (!threads.ok()) return children;
  for (const std::string& thread : *threads) {
    // Files in /proc have no size.
    std::ifstream file(absl::StrCat(path, "/", thread, "/children"));
    for (pid_t pid = 0; file >> pid;) children.push_back(pid);
  }
  return children;
}

TEST_F(TorchrunTest, TwoRanksMakeTheSameRunAsByItsVariablesAlone) {
  for (const RankEnd& end : run_->Run(2, "variables")) {
    ASSERT_EQ(end.code, kDone) << end.output;
  }
  Process torchrun = Torchrun({}, "torchrun", "");
  ASSERT_TRUE(torchrun.Wait(kLong));
  const RankEnd end = torchrun.End();
  EXPECT_EQ(end.code, kDone) << end.output;
  EXPECT_EQ(run_->State("torchrun", 12), run_->State("variables", 12));
}

// It starts all ranks again, and the run goes on by itself.
TEST_F(TorchrunTest, AKilledRankIsStartedAgainAndNothingIsLost) {
  constexpr int64_t kSteps = 60;
  const std::string more =
      "stages { name: 'pretrain' with { trainer { steps: 60 } } }";
  for (const RankEnd& end : run_->Run(2, "whole", more)) {
    ASSERT_EQ(end.code, kDone) << end.output;
  }
  Process torchrun = Torchrun({"--max-restarts=3"}, "killed", more);
  for (const size_t victim : {1, 0}) {
    const int64_t from = run_->NewestStep("killed");
    while (run_->NewestStep("killed") < from + 3 && torchrun.Running())
      usleep(1000);
    const std::vector<pid_t> ranks = Children(torchrun.pid());
    ASSERT_EQ(ranks.size(), 2u) << torchrun.End().output;
    ASSERT_EQ(kill(ranks[victim], SIGKILL), 0);
  }
  ASSERT_TRUE(torchrun.Wait(kLong));
  const RankEnd end = torchrun.End();
  EXPECT_EQ(end.code, kDone) << end.output;
  EXPECT_TRUE(absl::StrContains(end.output, "goes on at step")) << end.output;
  EXPECT_EQ(run_->State("killed", kSteps), run_->State("whole", kSteps));
}

}  // namespace
}  // namespace semvq
