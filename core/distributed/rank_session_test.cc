#include "core/distributed/rank_session.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/distributed/testing.h"

namespace semvq {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

Launch LaunchOf(int64_t rank, int64_t size, int port) {
  Launch launch;
  launch.launcher = "a test";
  launch.rank = rank;
  launch.size = size;
  launch.host = "127.0.0.1";
  launch.port = port;
  return launch;
}

RankSessionOptions Options(milliseconds timeout = milliseconds(50000)) {
  RankSessionOptions options;
  options.timeout = timeout;
  options.on_lost = [](const std::string& what) { ADD_FAILURE() << what; };
  return options;
}

// `run` on a thread for each rank, whose sessions all live until all are
// through.
void RunSessions(int64_t size, const std::function<Launch(int64_t)>& launch,
                 const std::function<void(RankSession&)>& run) {
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      auto session = RankSession::Connect(launch(r), Options());
      ASSERT_TRUE(session.ok()) << session.status();
      run(**session);
      (*session)->Finish();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(RankSessionTest, RanksMeetAndTrainTogether) {
  const int port = FreePort();
  RunSessions(
      3, [port](int64_t r) { return LaunchOf(r, 3, port); },
      [](RankSession& session) {
        EXPECT_TRUE(session.CheckAlike("nothing", {{"a", "1"}}).ok());
        ASSERT_TRUE(session.MakeGroup(at::kCPU).ok());
        Communicator& group = *session.group();
        EXPECT_EQ(group.rank(), session.launch().rank);
        EXPECT_EQ(group.size(), 3);
        EXPECT_EQ(group.AllReduceSum(at::full({}, group.rank() + 1, at::kLong))
                      .item<int64_t>(),
                  6);
        // That one was seen.
        EXPECT_GE(session.activity().Snapshot().waits_entered, 3);
      });
}

TEST(RankSessionTest, OneRankIsFine) {
  const int port = FreePort();
  RunSessions(
      1, [port](int64_t r) { return LaunchOf(r, 1, port); },
      [](RankSession& session) {
        EXPECT_TRUE(session.CheckAlike("nothing", {{"a", "1"}}).ok());
        ASSERT_TRUE(session.MakeGroup(at::kCPU).ok());
        EXPECT_EQ(session.group()->size(), 1);
      });
}

TEST(RankSessionTest, WhatDiffersIsNamedWithItsRanksOnAllOfThem) {
  const int port = FreePort();
  RunSessions(
      4, [port](int64_t r) { return LaunchOf(r, 4, port); },
      [](RankSession& session) {
        const int64_t rank = session.launch().rank;
        RankFacts facts = {{"program", "0.1.0"},
                           {"config hash", rank == 2 ? "beef" : "cafe"}};
        if (rank != 0) facts.emplace_back("samples", "48");
        const absl::Status status = session.CheckAlike("the experiment", facts);
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        const std::string text(status.message());
        EXPECT_THAT(text,
                    AllOf(HasSubstr("the ranks differ in the experiment"),
                          HasSubstr("config hash"), HasSubstr("rank 2: beef"),
                          HasSubstr("ranks 0, 1, 3: cafe")));
        // Only some of them have it.
        EXPECT_THAT(text, HasSubstr("samples\n    ranks 1-3: 48"));
        EXPECT_THAT(text, testing::Not(HasSubstr("0.1.0")));
      });
}

TEST(RankSessionTest, ARankThatDoesNotComeIsNamed) {
  const int port = FreePort();
  const auto zero =
      RankSession::Connect(LaunchOf(0, 3, port), Options(milliseconds(1000)));
  EXPECT_EQ(zero.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(zero.status().message()),
              HasSubstr("ranks 1, 2 of 3 did not come"));
  const auto one = RankSession::Connect(LaunchOf(1, 3, FreePort()),
                                        Options(milliseconds(1000)));
  EXPECT_EQ(one.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(one.status().message()),
              AllOf(HasSubstr("rank 1 of 3"), HasSubstr("MASTER_ADDR")));
}

// torchrun's agent keeps its store when it starts the ranks again, and the
// count of starts is not the same on all machines.
TEST(RankSessionTest, StartsThatShareAStoreDoNotMix) {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  const auto agent = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  const auto launch = [&agent](int64_t r) {
    Launch launch = LaunchOf(r, 2, agent->getPort());
    launch.agent_serves = true;
    launch.restarts = r;
    return launch;
  };
  // Of a start that was cut short, only rank 1 came.
  EXPECT_FALSE(
      RankSession::Connect(launch(1), Options(milliseconds(500))).ok());
  for (const char* value : {"first", "second"}) {
    RunSessions(2, launch, [value](RankSession& session) {
      const absl::Status status = session.CheckAlike("it", {{"value", value}});
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE(session.MakeGroup(at::kCPU).ok());
    });
  }
}

// The failure of one rank is what the others say, not that a connection broke.
TEST(RankSessionTest, AFailureElsewhereExplainsACollectiveThatFailed) {
  const int port = FreePort();
  std::vector<std::string> said(2);
  std::vector<std::thread> threads;
  for (int64_t r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      RankSessionOptions session_options = Options();
      session_options.on_lost = [](const std::string&) {};
      auto session =
          RankSession::Connect(LaunchOf(r, 2, port), session_options);
      ASSERT_TRUE(session.ok()) << session.status();
      ASSERT_TRUE((*session)->MakeGroup(at::kCPU).ok());
      const auto never = [] { return false; };
      if (r == 1) {
        said[r] = (*session)->Explain("record 7 is bad", false, never);
        return;
      }
      try {
        ActivityScope scope(&(*session)->activity(), "all-reduce",
                            ActivityScope::Waits::kForAllRanks);
        while (true) (*session)->group()->AllReduceSum(at::ones({4}));
      } catch (const std::exception& e) {
        said[r] = (*session)->Explain(e.what(), true, never);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(said[1], "record 7 is bad");
  EXPECT_THAT(said[0], HasSubstr("rank 1 failed: record 7 is bad"));
}

}  // namespace
}  // namespace semvq
