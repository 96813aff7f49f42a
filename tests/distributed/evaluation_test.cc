// Every task says the same on two ranks as on one, and rank 0 alone leaves
// files; and ranks share a pass over a stream.

#include "trainer/evaluation.h"

#include <google/protobuf/message.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

absl::Status Fine(const Batch&) { return absl::OkStatus(); }

// A pass over a stream that one or two ranks share.
class SharedPass : public testing::Test {
 protected:
  struct Seen {
    absl::Status status;
    int64_t computed = 0;          // Batches, by this rank.
    std::vector<int64_t> samples;  // Of the batches taken, in order.
    std::vector<std::string> texts, images;
    std::vector<at::Tensor> outcomes;
    int64_t skipped = -1;
  };

  // Images 0 to `images` - 1, of which those in `missing` have no file.
  void Write(int64_t images, const std::set<int64_t>& missing) {
    std::vector<std::string> records;
    for (int64_t i = 0; i < images; ++i) {
      records.push_back(absl::StrCat(
          R"({"image": "images/)", missing.count(i) > 0 ? "none" : "", i,
          R"(.png", "question": "a shape )", i, R"(", "question_id": )", i,
          R"(, "answer": "red"})"));
    }
    const std::string path = JoinPath(ConformanceData(), "shared.json");
    ASSERT_TRUE(AtomicWriteFile(
                    path, absl::StrCat("[", absl::StrJoin(records, ","), "]"))
                    .ok());
    for (const ConformanceCase& c : ConformanceCases(PluginKind::kDataSource)) {
      if (c.Name() != "AlbefJson") continue;
      neutrals_.clear();
      for (int rank = 0; rank < 2; ++rank) {
        auto neutral = Neutral::Create(c);
        ASSERT_TRUE(neutral.ok()) << neutral.status();
        (*neutral)->ForEachConfig(
            (*neutral)->experiment(), [&](google::protobuf::Message& config) {
              const auto* field =
                  config.GetDescriptor()->FindFieldByName("path");
              config.GetReflection()->ClearField(&config, field);
              config.GetReflection()->AddString(&config, field, path);
            });
        neutrals_.push_back(*std::move(neutral));
      }
      return;
    }
    FAIL() << "no AlbefJson";
  }

  // The pass of one rank. `compute` may fail for a batch.
  void Pass(Communicator* group, Seen* seen,
            const std::function<absl::Status(const Batch&)>& compute,
            const std::function<absl::Status(const Batch&)>& take = Fine) {
    Neutral& neutral = *neutrals_[group == nullptr ? 0 : group->rank()];
    const std::string folder = JoinPath(testing::TempDir(), "shared_pass");
    std::unique_ptr<Trainer> trainer;
    std::optional<StageSetup> setup;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      auto made = neutral.Setup(neutral.experiment(), folder);
      ASSERT_TRUE(made.ok()) << made.status();
      setup = *std::move(made);
      setup->group = group;
      auto created = Trainer::Create(*setup);
      ASSERT_TRUE(created.ok()) << created.status();
      trainer = *std::move(created);
    }
    TaskConfig task;
    task.set_name("shared");
    task.set_stream("questions");
    task.set_batch_size(2);
    StreamEvalContext context(*setup, trainer->model(), task);
    seen->status = context.ShareBatches(
        "",
        [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
          ++seen->computed;
          absl::Status status = compute(batch);
          if (!status.ok()) return status;
          return BatchOutcome{{batch.images.mean({1, 2, 3, 4}),
                               batch.images.flatten(1).argmax(1)},
                              {batch.image_ids[0]}};
        },
        [&](const Batch& batch, const BatchOutcome& outcome) {
          EXPECT_EQ(batch.images.sizes(),
                    (std::vector<int64_t>{batch.num_images(), 1, 0}));
          EXPECT_EQ(outcome.texts,
                    std::vector<std::string>{batch.image_ids[0]});
          seen->samples.insert(seen->samples.end(),
                               batch.sample_numbers.begin(),
                               batch.sample_numbers.end());
          for (const TextRecord& text : batch.texts) {
            seen->texts.push_back(absl::StrCat(text.id, " ", text.text, " ",
                                               text.answers[0].first));
          }
          seen->images.insert(seen->images.end(), batch.image_ids.begin(),
                              batch.image_ids.end());
          seen->outcomes.insert(
              seen->outcomes.end(),
              {outcome.tensors[0], outcome.tensors[1], batch.text_ids,
               batch.text_mask, batch.text_to_image});
          return take(batch);
        });
    seen->skipped = context.skipped();
  }

  static void ExpectSame(const Seen& a, const Seen& b) {
    EXPECT_EQ(a.samples, b.samples);
    EXPECT_EQ(a.texts, b.texts);
    EXPECT_EQ(a.images, b.images);
    EXPECT_EQ(a.skipped, b.skipped);
    ASSERT_EQ(a.outcomes.size(), b.outcomes.size());
    for (size_t i = 0; i < a.outcomes.size(); ++i)
      EXPECT_TRUE(at::equal(a.outcomes[i], b.outcomes[i])) << i;
  }

  std::vector<std::unique_ptr<Neutral>> neutrals_;
  std::mutex mutex_;
};

// Of 8 batches the third and the last have no good sample, the second one.
TEST_F(SharedPass, GivesEachBatchToOneRankAndAllResultsToAll) {
  Write(15, {3, 4, 5, 14});
  Seen one, two[2];
  Pass(nullptr, &one, Fine);
  ASSERT_TRUE(one.status.ok()) << one.status;
  EXPECT_EQ(one.samples,
            (std::vector<int64_t>{0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13}));
  EXPECT_EQ(one.skipped, 4);
  EXPECT_EQ(one.computed, 6);
  RunRanks(
      2, [&](Communicator& group) { Pass(&group, &two[group.rank()], Fine); });
  for (const Seen& of_rank : two) {
    ASSERT_TRUE(of_rank.status.ok()) << of_rank.status;
    ExpectSame(of_rank, one);
  }
  // Batches 0, 4, 6 and 1, 3, 5.
  EXPECT_EQ(two[0].computed, 3);
  EXPECT_EQ(two[1].computed, 3);
}

TEST_F(SharedPass, AnErrorOfOneRankIsEveryRanks) {
  Write(12, {});
  Seen two[2];
  const auto fails = [](const Batch& batch) {
    return batch.sample_numbers[0] == 6
               ? absl::DataLossError("sample 6 is no good")
               : absl::OkStatus();
  };
  RunRanks(
      2, [&](Communicator& group) { Pass(&group, &two[group.rank()], fails); });
  for (const Seen& of_rank : two) {
    EXPECT_EQ(of_rank.status, absl::DataLossError("sample 6 is no good"));
    EXPECT_EQ(of_rank.samples, (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  }
}

// As of rank 0, whose disk is full: also after the last batch.
TEST_F(SharedPass, ABatchThatOneRankCannotTakeEndsAll) {
  Write(12, {});
  for (const int64_t sample : {4, 10}) {
    Seen two[2];
    RunRanks(2, [&](Communicator& group) {
      Pass(&group, &two[group.rank()], Fine, [&](const Batch& batch) {
        return group.rank() == 0 && batch.sample_numbers[0] == sample
                   ? absl::ResourceExhaustedError("the disk is full")
                   : absl::OkStatus();
      });
    });
    for (const Seen& of_rank : two)
      EXPECT_EQ(of_rank.status,
                absl::ResourceExhaustedError("the disk is full"));
  }
}

// Each rank alone has met few enough.
TEST_F(SharedPass, BadSamplesAreJudgedTogether) {
  Write(24, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  Seen one, two[2];
  Pass(nullptr, &one, Fine);
  RunRanks(
      2, [&](Communicator& group) { Pass(&group, &two[group.rank()], Fine); });
  for (const Seen* seen : {&one, &two[0], &two[1]}) {
    EXPECT_EQ(seen->status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(seen->status.message(), "none0.png"))
        << seen->status;
  }
  EXPECT_TRUE(
      absl::StrContains(two[0].status.message(), "12 of the 24 samples"))
      << two[0].status;
}

}  // namespace
}  // namespace semvq
