// kill -9 of any rank at any moment of one run, in its saves too: it always
// goes on, ends in the same bits as a run that nobody disturbed, and no
// checkpoint is ever unreadable.
//
//   bazel test //tests/distributed:kill_test                    20 kills
//   bazel run //tests/distributed:kill_test -- --kills=500 --seed=7

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "core/checkpoint/checkpoint.h"
#include "core/util/file.h"
#include "tests/distributed/ranks.h"

namespace semvq {
namespace {

int64_t kills = 20;
uint64_t seed = 1;

constexpr int64_t kRanks = 2;
// A start is killed before it has saved so often, or the run would end before
// all kills are done.
constexpr int64_t kStepsPerKill = 4;
constexpr int64_t kStepsInAll = 6;  // For each kill: some come late.

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Killer {
 public:
  Killer(const TinyRun& run, const std::string& where, const std::string& more)
      : run_(run), where_(where), more_(more), random_(seed) {
    // For ranks that wait at the start for one that was killed there.
    run_.flags.push_back("--collective_timeout=15");
  }

  // Starts the ranks, kills some of them at a drawn moment, and waits for the
  // others.
  void StartAndKill() {
    std::vector<Process> ranks = run_.Start(kRanks, where_, more_);
    const int64_t from = run_.NewestStep(where_);
    const double start = Now();
    const std::string moment = WaitForTheMoment(ranks, from, start);
    // One of them, or all: a machine that is lost.
    const int64_t victim = Draw(kRanks + 1);
    int64_t killed = 0;
    for (int64_t r = 0; r < kRanks; ++r) {
      if ((victim != kRanks && victim != r) || !ranks[r].Running()) continue;
      ranks[r].Signal(SIGKILL);
      ++killed;
    }
    if (killed > 0) ++moments_[moment];
    done_ += killed > 0 ? 1 : 0;
    // torchrun ends the others at once, other launchers do not.
    const bool told = Draw(2) == 0;
    if (told) {
      for (Process& rank : ranks) rank.Signal(SIGTERM);
    }
    for (int64_t r = 0; r < kRanks; ++r) {
      ASSERT_TRUE(ranks[r].Wait(90))
          << "rank " << r << " goes on without rank " << victim;
      const RankEnd end = ranks[r].End();
      if (end.killed == SIGKILL) continue;
      EXPECT_TRUE(end.code == kFailed || end.code == kStopped ||
                  end.code == kDone || end.killed == SIGTERM)
          << end.code << " " << end.killed << "\n"
          << end.output;
      if (!told && victim != kRanks && end.code == kFailed) {
        EXPECT_TRUE(
            absl::StrContains(end.output, absl::StrCat("rank ", victim)))
            << end.output;
      }
    }
    CheckCheckpoints();
    ASSERT_FALSE(
        PathExists(JoinPath(run_.RunFolder(where_), "pretrain/result.pbtxt")) &&
        done_ < kills)
        << "the run ended after " << done_ << " kills; it needs more steps";
  }

  int64_t done() const { return done_; }
  std::string Moments() const {
    std::string text;
    for (const auto& [name, count] : moments_) {
      absl::StrAppend(&text, text.empty() ? "" : ", ", count, " ", name);
    }
    return text;
  }

 private:
  int64_t Draw(int64_t n) {
    return static_cast<int64_t>(random_() % static_cast<uint64_t>(n));
  }

  // Which kind of moment it was.
  std::string WaitForTheMoment(std::vector<Process>& ranks, int64_t from,
                               double start) {
    const int64_t kind = Draw(3);
    const int64_t steps = Draw(kStepsPerKill - 1);
    const double share = static_cast<double>(Draw(1000)) / 1000;
    while (ranks[0].Running() && ranks[1].Running()) {
      const int64_t newest = run_.NewestStep(where_);
      if (newest > from && first_save_ == 0) first_save_ = Now() - start;
      if (newest - from >= kStepsPerKill) return "late";
      if (kind == 0) {
        // Of the time to the first save, which is mostly that of starting.
        const double until = first_save_ == 0 ? 2 : first_save_;
        if (Now() - start > share * until) return "while starting";
      } else if (newest - from >= steps) {
        if (kind == 1 && run_.Saving(where_)) return "in a save";
        if (kind == 2 && newest > from) {
          usleep(static_cast<useconds_t>(share * 100000));
          return "in or between steps";
        }
      }
      usleep(500);
    }
    return "at the end";
  }

  void CheckCheckpoints() {
    auto all = ListCheckpoints(
        JoinPath(run_.RunFolder(where_), "pretrain/checkpoints"));
    ASSERT_TRUE(all.ok()) << all.status();
    for (const CheckpointInfo& info : *all) {
      EXPECT_TRUE(info.status.ok()) << info.status;
      auto contents = LoadCheckpoint(info.path);  // With all checksums.
      EXPECT_TRUE(contents.ok()) << contents.status();
    }
  }

  TinyRun run_;
  const std::string where_, more_;
  std::mt19937_64 random_;
  int64_t done_ = 0;
  double first_save_ = 0;
  std::map<std::string, int64_t> moments_;
};

TEST(KillTest, ARunThatIsKilledAgainAndAgainEndsInTheSameBits) {
  const TinyRun run(JoinPath(testing::TempDir(), "kills"));
  const int64_t steps = kills * kStepsInAll;
  const std::string more =
      absl::StrCat("stages { name: 'pretrain' with { trainer { steps: ", steps,
                   " } } } checkpoint { keep: 3 } ");
  // A step takes a few hundredths of a second on a quiet machine.
  const double patience = 250 + 0.5 * static_cast<double>(steps);
  for (const RankEnd& end : run.Run(kRanks, "whole", more, patience)) {
    ASSERT_EQ(end.code, kDone) << end.output;
  }
  Killer killer(run, "killed", more);
  const double start = Now();
  while (killer.done() < kills) {
    killer.StartAndKill();
    if (HasFatalFailure() || HasNonfatalFailure()) return;
    if (killer.done() % 20 == 0) {
      std::printf(
          "%lld kills (%s), step %lld, %.0f s\n",
          static_cast<long long>(killer.done()), killer.Moments().c_str(),
          static_cast<long long>(run.NewestStep("killed")), Now() - start);
      std::fflush(stdout);
    }
  }
  for (const RankEnd& end : run.Run(kRanks, "killed", more, patience)) {
    ASSERT_EQ(end.code, kDone) << end.output;
  }
  EXPECT_EQ(run.State("whole", steps), run.State("killed", steps));
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    absl::string_view arg = argv[i];
    const bool ok =
        absl::ConsumePrefix(&arg, "--kills=")
            ? absl::SimpleAtoi(arg, &semvq::kills) && semvq::kills > 0
            : absl::ConsumePrefix(&arg, "--seed=") &&
                  absl::SimpleAtoi(arg, &semvq::seed);
    if (!ok) {
      std::fprintf(stderr, "got \"%s\", expected --kills=N or --seed=N\n",
                   argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
