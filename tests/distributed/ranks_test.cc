// The trainer as several processes, started by torchrun's variables,
// stopped, killed, frozen, and started with what does not fit together.

#include "tests/distributed/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/checkpoint.h"
#include "core/distributed/testing.h"
#include "core/util/file.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

// For whatever waits: the machine may be busy.
constexpr double kLong = 250;
// Enough for a signal to come in time on a busy machine.
constexpr int64_t kSteps = 60;
constexpr char kSomeSteps[] =
    "stages { name: 'pretrain' with { trainer { steps: 60 } } }";
// Long enough for anything to happen in.
constexpr char kManySteps[] =
    "stages { name: 'pretrain' with { trainer { steps: 100000 } } } "
    "checkpoint { keep: 2 }";

class RanksTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    run_ =
        std::make_unique<TinyRun>(JoinPath(testing::TempDir(), info->name()));
  }

  // Two ranks that have saved some steps, after those of an earlier start.
  std::vector<Process> StartedRanks() {
    const int64_t from = run_->NewestStep("run");
    std::vector<Process> ranks = run_->Start(2, "run", kManySteps);
    while (run_->NewestStep("run") < from + 2) {
      if (!ranks[0].Running() || !ranks[1].Running()) {
        ADD_FAILURE() << ranks[0].End().output << ranks[1].End().output;
        break;
      }
      usleep(2000);
    }
    return ranks;
  }

  std::string ErrorsOf(int64_t rank) {
    auto text = ReadFile(JoinPath(run_->RunFolder("run"),
                                  absl::StrCat("errors/rank_", rank, ".txt")));
    return text.ok() ? *text : "";
  }

  // A rank that reads `data` and one that does not refuse to train; the error
  // has `difference`.
  void ExpectOtherData(const std::string& data, const char* difference) {
    const int port = FreePort();
    std::vector<Process> ranks;
    ranks.push_back(run_->StartRank(0, 2, port, "run"));
    ranks.push_back(
        run_->StartRank(1, 2, port, "run", "", {{"E2E_DATA", data}}));
    for (Process& rank : ranks) {
      ASSERT_TRUE(rank.Wait(kLong));
      EXPECT_EQ(rank.End().code, kFailed) << rank.End().output;
    }
    EXPECT_THAT(ranks[0].End().output,
                AllOf(HasSubstr("the ranks differ in their data"),
                      HasSubstr("stream pairs"), HasSubstr(difference)));
    EXPECT_EQ(run_->NewestStep("run"), 0);
  }

  std::unique_ptr<TinyRun> run_;
};

TEST_F(RanksTest, TwoRanksMakeOneRun) {
  const std::vector<RankEnd> ends = run_->Run(2, "run");
  EXPECT_EQ(ends[0].code, kDone) << ends[0].output;
  EXPECT_EQ(ends[1].code, kDone) << ends[1].output;
  EXPECT_THAT(ends[0].output, HasSubstr("results in"));
  // The others say nothing, and no more of a line of theirs than its rank.
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(ends[1].output, '\n'))) {
    EXPECT_THAT(line, AnyOf(IsEmpty(), StartsWith("[rank 1] ")));
  }
  EXPECT_EQ(run_->NewestStep("run"), 12);
  EXPECT_TRUE(
      PathExists(JoinPath(run_->RunFolder("run"), "pretrain/result.pbtxt")));
}

TEST_F(RanksTest, ADeadRankIsNamedByTheOtherWithin30Seconds) {
  for (const int64_t victim : {1, 0}) {
    std::vector<Process> ranks = StartedRanks();
    const int64_t other = 1 - victim;
    ranks[victim].Signal(SIGKILL);
    ASSERT_TRUE(ranks[other].Wait(30));
    const RankEnd end = ranks[other].End();
    EXPECT_EQ(end.code, kFailed);
    EXPECT_THAT(end.output, HasSubstr(absl::StrCat("rank ", victim)));
    EXPECT_THAT(end.output, AnyOf(HasSubstr("died"), HasSubstr("is gone")));
    EXPECT_THAT(ErrorsOf(other), HasSubstr(absl::StrCat("rank ", victim)));
  }
}

// Nothing closes its connections: a frozen machine, a debugger.
TEST_F(RanksTest, ARankThatStandsStillIsNamed) {
  for (const int64_t victim : {1, 0}) {
    std::vector<Process> ranks = StartedRanks();
    const int64_t other = 1 - victim;
    ranks[victim].Signal(SIGSTOP);
    ASSERT_TRUE(ranks[other].Wait(kLong));
    const RankEnd end = ranks[other].End();
    EXPECT_EQ(end.code, kFailed);
    EXPECT_THAT(end.output, HasSubstr(absl::StrCat("rank ", victim)));
    EXPECT_THAT(end.output, AnyOf(HasSubstr("not been heard of"),
                                  HasSubstr("does not answer")));
    // And it ends when it wakes: the others are gone.
    ranks[victim].Signal(SIGCONT);
    ASSERT_TRUE(ranks[victim].Wait(kLong));
    const RankEnd woken = ranks[victim].End();
    EXPECT_EQ(woken.code, kFailed) << "signal " << woken.killed << "\n"
                                   << woken.output;
  }
}

TEST_F(RanksTest, ASignalToOneRankStopsAllAtOneStepAndNothingIsLost) {
  for (const RankEnd& end : run_->Run(2, "whole", kSomeSteps)) {
    ASSERT_EQ(end.code, kDone) << end.output;
  }
  for (const int64_t told : {1, 0}) {
    const std::string where = absl::StrCat("told", told);
    std::vector<Process> ranks = run_->Start(2, where, kSomeSteps);
    while (run_->NewestStep(where) < 3 && ranks[0].Running()) usleep(1000);
    ranks[told].Signal(SIGTERM);
    for (Process& rank : ranks) {
      ASSERT_TRUE(rank.Wait(kLong));
      EXPECT_EQ(rank.End().code, kStopped) << rank.End().output;
    }
    EXPECT_LT(run_->NewestStep(where), kSteps);
    for (const RankEnd& end : run_->Run(2, where, kSomeSteps)) {
      EXPECT_EQ(end.code, kDone) << end.output;
    }
    EXPECT_EQ(run_->State("whole", kSteps), run_->State(where, kSteps));
  }
}

// The place in the data is counted in samples, not in steps, so none is left
// out or repeated (data/loader_test.cc looks at the samples themselves).
TEST_F(RanksTest, TheNumberOfRanksMayChangeOnTheWay) {
  const std::string epochs =
      "stages { name: 'pretrain' with { trainer { epochs: 40 } } }";
  int64_t step = 0, samples = 0;
  for (const int64_t size : {2, 1, 2}) {
    std::vector<Process> ranks = run_->Start(size, "run", epochs);
    while (run_->NewestStep("run") < step + 3 && ranks[0].Running()) {
      usleep(1000);
    }
    ranks[0].Signal(SIGTERM);
    for (Process& rank : ranks) {
      ASSERT_TRUE(rank.Wait(kLong));
      EXPECT_EQ(rank.End().code, kStopped) << rank.End().output;
    }
    const int64_t newest = run_->NewestStep("run");
    EXPECT_GE(newest, step + 3);
    samples += (newest - step) * size * kBatch;
    step = newest;
    auto saved = LoadCheckpoint(run_->CheckpointFolder("run", step));
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->state["samples"], absl::StrCat(samples));
  }
  for (const RankEnd& end : run_->Run(1, "run", epochs)) {
    EXPECT_EQ(end.code, kDone) << end.output;
  }
  // 40 times 48 images, in steps of one rank at last.
  const int64_t left = 1920 - samples;
  EXPECT_EQ(run_->NewestStep("run"), step + (left + kBatch - 1) / kBatch);
}

TEST_F(RanksTest, RanksWithDifferentExperimentsDoNotStart) {
  const int port = FreePort();
  std::vector<Process> ranks;
  ranks.push_back(run_->StartRank(0, 2, port, "run"));
  ranks.push_back(run_->StartRank(1, 2, port, "run", "optimizer { lr: 2e-3 }"));
  for (Process& rank : ranks) {
    ASSERT_TRUE(rank.Wait(kLong));
    EXPECT_EQ(rank.End().code, kFailed) << rank.End().output;
  }
  EXPECT_THAT(ranks[0].End().output,
              AllOf(HasSubstr("the ranks differ in the experiment"),
                    HasSubstr("config hash of stage pretrain"),
                    HasSubstr("rank 0: "), HasSubstr("rank 1: ")));
  EXPECT_EQ(run_->NewestStep("run"), 0);
}

TEST_F(RanksTest, RanksWithDifferentDataDoNotStart) {
  ShapesOptions others;
  others.images = 40;
  const std::string data = JoinPath(run_->folder(), "others");
  ASSERT_TRUE(WriteShapes(data, others).ok());
  ExpectOtherData(data, "rank 1: 40");
}

TEST_F(RanksTest, RanksWithDifferentPicturesDoNotStart) {
  const std::string data = JoinPath(run_->folder(), "others");
  ASSERT_TRUE(WriteShapes(data).ok());
  auto other = ReadFile(JoinPath(data, "images/1.png"));
  ASSERT_TRUE(other.ok()) << other.status();
  ASSERT_TRUE(AtomicWriteFile(JoinPath(data, "images/0.png"), *other).ok());
  ExpectOtherData(data, "rank 1: 48");
}

TEST_F(RanksTest, TheFailureOfARankIsTheLastWordOfRankZero) {
  const int port = FreePort();
  std::vector<Process> ranks;
  ranks.push_back(run_->StartRank(0, 2, port, "run"));
  ranks.push_back(
      run_->StartRank(1, 2, port, "run", "", {{"E2E_DATA", "/nowhere"}}));
  for (Process& rank : ranks) ASSERT_TRUE(rank.Wait(kLong));
  EXPECT_EQ(ranks[1].End().code, kBadInput);
  EXPECT_THAT(ranks[1].End().output,
              HasSubstr("[rank 1]   /nowhere/pairs.json"));
  EXPECT_EQ(ranks[0].End().code, kFailed);
  EXPECT_THAT(ranks[0].End().output, AllOf(HasSubstr("rank 1 failed"),
                                           HasSubstr("/nowhere/pairs.json")));
}

TEST_F(RanksTest, HalfALaunchIsRefused) {
  std::map<std::string, std::string> environment = run_->Environment("run");
  environment["RANK"] = "0";
  Process process(run_->Command(), environment,
                  JoinPath(run_->folder(), "half"));
  ASSERT_TRUE(process.Wait(kLong));
  EXPECT_EQ(process.End().code, kBadInput);
  EXPECT_THAT(process.End().output, HasSubstr("WORLD_SIZE is not"));
}

TEST_F(RanksTest, OneOfSeveralValidates) {
  std::vector<std::string> command = run_->Command();
  command.push_back("--mode=validate");
  std::map<std::string, std::string> environment = run_->Environment("run");
  for (const auto& [name, value] : RankEnvironment(1, 2, FreePort())) {
    environment[name] = value;
  }
  Process process(command, environment, JoinPath(run_->folder(), "one"));
  ASSERT_TRUE(process.Wait(kLong));
  EXPECT_EQ(process.End().code, kDone);
  EXPECT_THAT(process.End().output, Not(HasSubstr("valid")));
}

}  // namespace
}  // namespace semvq
