#include "core/distributed/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

namespace semvq {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr milliseconds kLong(50000);

// Ranks of this process, each with a watchdog.
class WatchdogTest : public testing::Test {
 protected:
  void Start(int64_t size, milliseconds timeout = kLong) {
    store_ = c10::make_intrusive<c10d::HashStore>();
    activities_ = std::vector<Activity>(size);
    dogs_.resize(size);
    for (int64_t r = 0; r < size; ++r) {
      WatchdogOptions options;
      options.rank = r;
      options.size = size;
      options.timeout = timeout;
      options.beat = milliseconds(20);
      options.silence = milliseconds(2000);
      dogs_[r] = std::make_unique<Watchdog>(store_, &activities_[r], options,
                                            [](const std::string&) {});
    }
  }

  // What rank `r` is told; empty: nothing within `timeout`.
  std::string Loss(int64_t r, milliseconds timeout = kLong) {
    return dogs_[r]->WaitForLoss(timeout, [] { return false; }).value_or("");
  }

  c10::intrusive_ptr<c10d::HashStore> store_;
  std::vector<Activity> activities_;
  std::vector<std::unique_ptr<Watchdog>> dogs_;
};

TEST_F(WatchdogTest, AFailureIsToldToAll) {
  Start(4);
  EXPECT_EQ(dogs_[2]->TellFailure("rank 2 failed: no more data"),
            "rank 2 failed: no more data");
  for (const int64_t r : {0, 1, 3}) {
    EXPECT_EQ(Loss(r), "rank 2 failed: no more data");
  }
  EXPECT_EQ(Loss(2, milliseconds(200)), "");
  // The first one counts.
  EXPECT_EQ(dogs_[3]->TellFailure("connection closed"),
            "rank 2 failed: no more data");
}

TEST_F(WatchdogTest, ARankThatIsGoneIsNamedWithWhatItDid) {
  Start(4);
  activities_[1].SetStep(17);
  ActivityScope step(&activities_[1], "training step");
  ActivityScope data(&activities_[1], "waiting for data");
  // Until all have been seen.
  while (!store_->check({"beat/0", "beat/1", "beat/2", "beat/3"}) ||
         store_->get_to_str("beat/1").find("data") == std::string::npos) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  dogs_[1].reset();
  for (const int64_t r : {0, 2, 3}) {
    EXPECT_THAT(Loss(r),
                AllOf(HasSubstr("rank 1 has not been heard of"),
                      HasSubstr("step 17, training step, waiting for data"),
                      Not(HasSubstr("rank 2")), Not(HasSubstr("rank 3"))));
  }
}

TEST_F(WatchdogTest, ARankThatLeftIsNotMissed) {
  Start(3);
  dogs_[1]->Leave();
  dogs_[1].reset();
  EXPECT_EQ(Loss(0, milliseconds(4000)), "");
  dogs_[0]->Leave();
  dogs_[2]->Leave();
  dogs_[0]->WaitUntilAllLeft(kLong);
}

TEST_F(WatchdogTest, TheLateRankIsNamedAndWhatWaitsForIt) {
  Start(3, milliseconds(1000));
  activities_[0].SetStep(8);
  activities_[1].SetStep(8);
  activities_[2].SetStep(8);
  ActivityScope zero(&activities_[0], "all-reduce",
                     ActivityScope::Waits::kForAllRanks);
  ActivityScope one(&activities_[1], "reading a slow disk");
  ActivityScope two(&activities_[2], "all-reduce",
                    ActivityScope::Waits::kForAllRanks);
  for (const int64_t r : {0, 1, 2}) {
    const std::string loss = r == 1 ? "" : Loss(r);
    if (r == 1) continue;  // It sees it too, unless it told it first.
    EXPECT_THAT(loss, AllOf(HasSubstr("rank 1 is late"),
                            HasSubstr("step 8, all-reduce"),
                            HasSubstr("rank 1: step 8, reading a slow disk"),
                            Not(HasSubstr("ranks"))));
  }
  EXPECT_THAT(Loss(1), HasSubstr("rank 1 is late"));
}

TEST_F(WatchdogTest, RanksInDifferentCollectives) {
  Start(2, milliseconds(1000));
  ActivityScope zero(&activities_[0], "all-reduce",
                     ActivityScope::Waits::kForAllRanks);
  ActivityScope one(&activities_[1], "broadcast",
                    ActivityScope::Waits::kForAllRanks);
  EXPECT_THAT(Loss(0), AllOf(HasSubstr("all-reduce"), HasSubstr("broadcast")));
}

TEST_F(WatchdogTest, NoLossWithoutOne) {
  Start(3, milliseconds(500));
  ActivityScope slow(&activities_[0], "evaluating");
  EXPECT_EQ(Loss(0, milliseconds(4000)), "");
}

TEST(ActivityTest, RemembersTheCollectiveThatAnExceptionLeft) {
  Activity activity;
  const auto run = [&activity](bool fail) {
    ActivityScope step(&activity, "training step");
    ActivityScope reduce(&activity, "all-reduce",
                         ActivityScope::Waits::kForAllRanks);
    if (fail) throw std::runtime_error("lost");
  };
  run(false);
  EXPECT_EQ(activity.failed_wait(), "");
  EXPECT_EQ(activity.Snapshot().waits_entered, 1);
  EXPECT_THROW(run(true), std::runtime_error);
  EXPECT_EQ(activity.failed_wait(), "all-reduce");
  EXPECT_EQ(activity.Snapshot().doing, "");
  ActivityScope none(nullptr, "alone");
}

}  // namespace
}  // namespace semvq
