// Evaluation by the official annotations file, and without any answers.
#include <torch/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/util/file.h"
#include "gtest/gtest.h"
#include "tasks/vqa/vqa.h"

namespace semvq {
namespace {

std::string TempFile(const std::string& name, const std::string& contents) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      JoinPath(testing::TempDir(), absl::StrCat(test->name(), "_", name));
  EXPECT_TRUE(AtomicWriteFile(path, contents).ok());
  return path;
}

// Ten annotators, of whom `matches` say "a dog" and the others "none".
std::string Annotation(int id, const std::string& question_type,
                       const std::string& answer_type, int matches) {
  std::string answers;
  for (int i = 0; i < 10; ++i) {
    absl::StrAppend(&answers, i > 0 ? "," : "", R"({"answer_id": )", i,
                    R"(, "answer": ")", i < matches ? "a dog" : "none", "\"}");
  }
  return absl::StrCat(R"({"question_id": )", id, R"(, "question_type": ")",
                      question_type, R"(", "answer_type": ")", answer_type,
                      R"(", "answers": [)", answers, "]}");
}

std::string Annotations(const std::vector<std::string>& records) {
  std::string list;
  for (const std::string& record : records)
    absl::StrAppend(&list, list.empty() ? "" : ",", record);
  return TempFile("annotations.json",
                  absl::StrCat(R"({"annotations": [)", list, "]}"));
}

class OfficialTest : public testing::Test {
 protected:
  void SetUp() override {
    config.set_answer_list(TempFile("list.json", R"(["dog", "0", "cat"])"));
  }

  void Ask(const std::vector<std::string>& ids) {
    TestBatchOptions options;
    options.images = 1;
    options.texts_per_image = static_cast<int64_t>(ids.size());
    Batch batch = TestBatch(options);
    for (size_t t = 0; t < ids.size(); ++t) {
      batch.texts[t] = TextRecord();
      batch.texts[t].id = ids[t];
      batch.texts[t].text = "what is it";
    }
    context.streams[""].push_back(batch);
  }

  // Every question is answered with that one of the list.
  absl::StatusOr<TaskResult> Evaluate(int64_t answer) {
    ContractBook book;
    Contract fusion;
    fusion.provides = {{kFused, 4}};
    book.Add("fusion", fusion);
    PluginContext plugin;
    plugin.instance = "vqa";
    plugin.book = &book;
    auto task = MakeVqa(config, plugin);
    if (!task.ok()) return task.status();
    context.Provide("vqa", [answer](const ViewKey&, Forward& f) -> std::any {
      at::Tensor logits = at::zeros({f.batch().num_texts(), 3});
      logits.select(1, answer).fill_(1);
      return logits;
    });
    return (*task)->Evaluate(context);
  }

  void ExpectError(const std::string& part) {
    const absl::Status status = Evaluate(0).status();
    EXPECT_TRUE(absl::StrContains(status.message(), part)) << status;
    EXPECT_FALSE(PathExists(context.folder + "/vqa_result.json"));
  }

  VqaConfig config;
  FakeEvalContext context;
};

TEST_F(OfficialTest, AccuracyIsNormalisedAndByType) {
  config.set_annotations(Annotations({Annotation(1, "what is", "other", 2),
                                      Annotation(2, "is it", "yes/no", 10),
                                      Annotation(3, "what is", "other", 3)}));
  Ask({"1", "3"});
  Ask({"2"});
  const auto result = Evaluate(0);  // "dog"
  ASSERT_TRUE(result.ok()) << result.status();
  // Of two annotators who agree, each leaves one: 2 * 1/3 and 8 * 2/3; of
  // three: 3 * 2/3 and 7. Where all ten agree nothing is normalised, and "a
  // dog" is not "dog".
  const double two = 10 * (2.0 / 3 + 16.0 / 3), three = 10 * 9.0;
  EXPECT_NEAR(MetricOf(*result, "accuracy").value, (two + three) / 3, 1e-9);
  EXPECT_NEAR(MetricOf(*result, "accuracy, other").value, (two + three) / 2,
              1e-9);
  EXPECT_EQ(MetricOf(*result, "accuracy, yes/no").value, 0);
  EXPECT_NEAR(MetricOf(*result, "accuracy, \"what is\" questions").value,
              (two + three) / 2, 1e-9);
  EXPECT_TRUE(MetricOf(*result, "accuracy, other").headline);
  EXPECT_FALSE(MetricOf(*result, "accuracy, \"is it\" questions").headline);
  EXPECT_EQ(result->metrics.size(), 5u);
  // "none" is 0 to the script.
  EXPECT_NEAR(MetricOf(*Evaluate(1), "accuracy, other").value, 100, 1e-9);
}

TEST_F(OfficialTest, WithoutAFileTheStreamsAnswersMayBeNormalised) {
  Ask({"1"});
  TextRecord& text = context.streams[""][0].texts[0];
  text.answers = {{"a dog", 0.2f}, {"The dog.", 0.1f}, {"none", 0.7f}};
  text.annotators = 10;
  EXPECT_EQ(MetricOf(*Evaluate(0), "accuracy").value, 0);
  config.set_official_normalization(true);
  EXPECT_NEAR(MetricOf(*Evaluate(0), "accuracy").value, 90, 1e-9);
  EXPECT_EQ(MetricOf(*Evaluate(2), "accuracy").value, 0);
}

TEST_F(OfficialTest, QuestionsAndAnnotationsMustMatch) {
  const std::string one = Annotation(1, "what", "other", 5);
  config.set_annotations(Annotations({one, Annotation(2, "what", "other", 5)}));
  Ask({"1", "3"});
  ExpectError("(question_id \"3\") is not in " + config.annotations());

  context.streams[""].clear();
  Ask({"1", "1"});
  ExpectError("(question_id \"1\") comes twice in the stream");

  context.streams[""].clear();
  Ask({"1"});
  context.skipped_samples = 4;
  ExpectError(
      "1 of 2 annotations have no question in the stream (4 bad samples were "
      "skipped), the first is question_id 2");
  config.set_partial(true);
  const auto result = Evaluate(0);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->note,
            "1 questions, 3 answers; 1 of 2 annotations have no question in "
            "the stream and are left out; 4 bad samples are left out");
}

TEST_F(OfficialTest, AWrongFileIsNamed) {
  config.set_annotations(
      TempFile("questions.json", R"({"questions": [{"question_id": 1}]})"));
  Ask({"1"});
  ExpectError("looks like VQA v2's questions file");
}

TEST_F(OfficialTest, PredictionsAloneNeedNoAnswers) {
  Ask({"5", "7"});
  EXPECT_TRUE(
      absl::StrContains(Evaluate(2).status().message(), "set predict_only"));
  config.set_predict_only(true);
  config.set_baseline_stream("nowhere");
  const auto result = Evaluate(2);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->metrics.size(), 1u);
  EXPECT_EQ(MetricOf(*result, "questions answered").value, 2);
  EXPECT_EQ(*ReadFile(result->files[0]),
            "[\n{\"question_id\": 5, \"answer\": \"cat\"},\n"
            "{\"question_id\": 7, \"answer\": \"cat\"}\n]\n");
  EXPECT_EQ(VqaContract("vqa", config, {}).batch_keys,
            (std::vector<std::string>{"image", "text"}));
  Ask({""});
  EXPECT_TRUE(absl::StrContains(Evaluate(2).status().message(),
                                "has no id to write the answer for"));
}

TEST_F(OfficialTest, AnotherInstanceMayAnswer) {
  Ask({"5"});
  config.set_predict_only(true);
  config.set_answered_by("trained");
  const Contract contract = VqaContract("vqa", config, {});
  ASSERT_EQ(contract.needs.size(), 1u);
  EXPECT_EQ(contract.needs[0].field, "answered_by");
  EXPECT_EQ(contract.needs[0].instance, "trained");
  EXPECT_TRUE(contract.provides.empty());
  int64_t answers = 3;
  context.Provide("trained", [&](const ViewKey& key, Forward&) -> std::any {
    EXPECT_EQ(key.view, kAnswerLogits);
    return at::arange(answers).view({1, -1});
  });
  const auto result = Evaluate(0);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*ReadFile(result->files[0]),
            "[\n{\"question_id\": 5, \"answer\": \"cat\"}\n]\n");
  answers = 4;
  EXPECT_TRUE(absl::StrContains(
      Evaluate(0).status().message(),
      "answer_list holds 3 answers, that of \"trained\" (answered_by) 4"));
}

}  // namespace
}  // namespace semvq
