// Every task says the same on two ranks as on one, and rank 0 alone leaves
// files.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/distributed/testing.h"
#include "core/util/file.h"
#include "tests/conformance/neutral.h"
#include "trainer/trainer.h"

namespace semvq {
namespace {

class RanksEvaluation : public testing::TestWithParam<ConformanceCase> {};

std::vector<std::unique_ptr<Neutral>> TwoNeutrals(const ConformanceCase& c) {
  std::vector<std::unique_ptr<Neutral>> neutrals;
  for (int rank = 0; rank < 2; ++rank) {
    auto neutral = Neutral::Create(c);
    EXPECT_TRUE(neutral.ok()) << neutral.status();
    if (!neutral.ok()) break;
    Experiment& e = (*neutral)->experiment();
    for (TaskConfig& task : *e.mutable_tasks()) task.set_batch_size(3);
    neutrals.push_back(*std::move(neutral));
  }
  return neutrals;
}

void Compare(const ConformanceCase& c) {
  const auto neutrals = TwoNeutrals(c);
  ASSERT_EQ(neutrals.size(), 2u);
  std::mutex mutex;
  const auto evaluate = [&](Communicator* group, const std::string& folder,
                            StageResult* result) {
    Neutral& neutral = *neutrals[group == nullptr ? 0 : group->rank()];
    std::unique_ptr<Trainer> trainer;
    {
      std::lock_guard<std::mutex> lock(mutex);
      auto setup = neutral.Setup(neutral.experiment(), folder);
      ASSERT_TRUE(setup.ok()) << setup.status();
      setup->group = group;
      auto made = Trainer::Create(*std::move(setup));
      ASSERT_TRUE(made.ok()) << made.status();
      trainer = *std::move(made);
    }
    auto evaluated = trainer->Evaluate();
    ASSERT_TRUE(evaluated.ok()) << evaluated.status();
    *result = *std::move(evaluated);
  };
  const std::string one_folder = FreshFolder("one");
  const std::string two_folder = FreshFolder("two");
  StageResult one, two[2];
  evaluate(nullptr, one_folder, &one);
  RunRanks(2, [&](Communicator& group) {
    evaluate(&group, two_folder, &two[group.rank()]);
  });
  ASSERT_GT(one.tasks_size(), 0);
  for (const StageResult& of_rank : two) {
    ASSERT_EQ(of_rank.tasks_size(), one.tasks_size());
    for (int t = 0; t < one.tasks_size(); ++t)
      EXPECT_EQ(of_rank.tasks(t).DebugString(), one.tasks(t).DebugString());
  }
  // The same files with the same bytes, and no others.
  const auto names = ListDirectory(one_folder);
  ASSERT_TRUE(names.ok());
  const auto other = ListDirectory(two_folder);
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(*other, *names);
  for (const std::string& name : *names) {
    const auto a = ReadFile(JoinPath(one_folder, name));
    const auto b = ReadFile(JoinPath(two_folder, name));
    ASSERT_TRUE(a.ok() && b.ok()) << name;
    EXPECT_EQ(*a, *b) << name;
  }
}

TEST_P(RanksEvaluation, TwoRanksSayWhatOneSays) { Compare(GetParam()); }

INSTANTIATE_TEST_SUITE_P(
    All, RanksEvaluation,
    testing::ValuesIn(ConformanceCases(PluginKind::kTask)),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

}  // namespace
}  // namespace semvq
