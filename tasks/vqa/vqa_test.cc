#include "tasks/vqa/vqa.h"

#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/testing.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 6;
const std::vector<std::string> kAnswers = {"yes", "no", "2", "a \"b\"\n"};

std::string AnswerFile(const std::string& contents) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      JoinPath(testing::TempDir(), absl::StrCat(test->name(), ".json"));
  EXPECT_TRUE(AtomicWriteFile(path, contents).ok());
  return path;
}

std::string ListJson(const std::vector<std::string>& answers) {
  std::string json = "[";
  for (const std::string& answer : answers) {
    absl::StrAppend(&json, json.size() > 1 ? ", " : "", JsonString(answer));
  }
  return json + "]";
}

absl::StatusOr<std::shared_ptr<Task>> Make(const VqaConfig& config,
                                           const std::string& instance = "vqa",
                                           bool planning = false) {
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kDim}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = instance;
  context.book = &book;
  context.planning = planning;
  return MakeVqa(config, context);
}

VqaConfig ListConfig() {
  VqaConfig config;
  config.set_answer_list(AnswerFile(ListJson(kAnswers)));
  return config;
}

TextRecord Question(std::string id, std::string text,
                    std::vector<std::pair<std::string, float>> answers,
                    int annotators = 1) {
  TextRecord record;
  record.id = std::move(id);
  record.text = std::move(text);
  record.answers = std::move(answers);
  record.annotators = annotators;
  return record;
}

// A batch of questions about one image.
Batch QuestionBatch(std::vector<TextRecord> questions) {
  TestBatchOptions options;
  options.images = 1;
  options.texts_per_image = static_cast<int64_t>(questions.size());
  Batch batch = TestBatch(options);
  batch.texts = std::move(questions);
  return batch;
}

// ---- The objective.

class VqaObjectiveTest : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    absl::StatusOr<std::shared_ptr<Task>> made = Make(ListConfig());
    ASSERT_TRUE(made.ok()) << made.status();
    task = *made;
    task->to(at::kDouble);
    for (at::Tensor p : task->parameters()) {
      c10::NoGradGuard no_grad;
      p.add_(at::randn_like(p), 0.3);  // Away from the small first values.
    }
    TestBatchOptions options;
    options.images = 2;
    options.texts_per_image = 3;
    batch = TestBatch(options);
    batch.texts = {
        Question("1", "q", {{"yes", 0.6f}, {"no", 0.4f}}, 10),
        Question("2", "q", {{"2", 0.3f}, {"maybe", 0.7f}}, 10),
        Question("3", "q", {{"maybe", 1.0f}}),  // Not in the list: no weight.
        Question("4", "q", {{"no", 1.0f}}),
        Question("5", "q", {}),
        Question("6", "q", {{"yes", 0.5f}, {"2", 0.25f}, {"red", 0.25f}}, 4),
    };
    fused = at::randn({6, 4, kDim}, at::kDouble).requires_grad_(true);
  }

  ObjectiveOutput Compute(const at::Tensor& values, const Batch& on) {
    TestForward forward(on);
    FakeProvider fusion([&](const ViewKey& key, Forward&) -> std::any {
      EXPECT_EQ(ToString(key), "fusion/fused");
      Tokens tokens;
      tokens.values = values;
      return tokens;
    });
    forward.student = {{"fusion", &fusion}, {"vqa", task.get()}};
    logits = forward->Get<at::Tensor>(FusedKey("vqa", kAnswerLogits)).detach();
    return task->Compute(*forward);
  }

  std::shared_ptr<Task> task;
  Batch batch;
  at::Tensor fused, logits;
};

TEST_F(VqaObjectiveTest, LossIsTheCrossEntropyOfTheListedShares) {
  const ObjectiveOutput output = Compute(fused, batch);
  ASSERT_EQ(logits.sizes(), (std::vector<int64_t>{6, 4}));
  const double shares[6][4] = {{.6, .4, 0, 0}, {0, 0, .3, 0}, {0, 0, 0, 0},
                               {0, 1, 0, 0},   {0, 0, 0, 0},  {.5, 0, .25, 0}};
  double loss = 0, accuracy = 0;
  int counted = 0;
  for (int t = 0; t < 6; ++t) {
    double mass = 0, normaliser = 0;
    int best = 0;
    for (int a = 0; a < 4; ++a) {
      mass += shares[t][a];
      normaliser += std::exp(logits[t][a].item<double>());
      if (logits[t][a].item<double>() > logits[t][best].item<double>())
        best = a;
    }
    accuracy += shares[t][best] / 6;
    if (mass == 0) continue;
    ++counted;
    for (int a = 0; a < 4; ++a) {
      loss -= shares[t][a] / mass *
              (logits[t][a].item<double>() - std::log(normaliser));
    }
  }
  ASSERT_EQ(counted, 4);
  ASSERT_EQ(output.losses.size(), 1u);
  EXPECT_NEAR(ValueOf(output.losses, "answer"), loss / counted, 1e-6);
  EXPECT_NEAR(ValueOf(output.metrics, "accuracy"), accuracy, 1e-6);
  EXPECT_FALSE(output.metrics[0].second.requires_grad());
}

TEST_F(VqaObjectiveTest, GradientEqualsDifferences) {
  std::vector<at::Tensor> inputs = task->parameters();
  inputs.push_back(fused);
  ASSERT_EQ(inputs.size(), 7u);
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>& in) {
        return SumOf(Compute(in.back(), batch).losses);
      },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(VqaObjectiveTest, ABatchWithoutListedAnswersHasLossAndGradientZero) {
  for (TextRecord& text : batch.texts) text.answers = {{"maybe", 1.0f}};
  const at::Tensor loss = SumOf(Compute(fused, batch).losses);
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0);
  EXPECT_EQ(fused.grad().abs().max().item<double>(), 0);
}

TEST_F(VqaObjectiveTest, HalfPrecisionLogitsGiveAFloatLoss) {
  task->to(at::kBFloat16);
  const at::Tensor loss =
      SumOf(Compute(fused.detach().to(at::kBFloat16), batch).losses);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
}

TEST_F(VqaObjectiveTest, TheHeadReadsTheSameVariantOfTheFusion) {
  TestForward forward(batch, /*with_teacher=*/true);
  std::vector<std::string> asked;
  FakeProvider fusion([&](const ViewKey& key, Forward&) -> std::any {
    asked.push_back(ToString(key));
    Tokens tokens;
    tokens.values = fused;
    return tokens;
  });
  forward.student =
      forward.teacher = {{"fusion", &fusion}, {"vqa", task.get()}};
  Variant teacher;
  teacher.teacher = true;
  forward->Get<at::Tensor>(FusedKey("vqa", kAnswerLogits, teacher, "pairs"));
  EXPECT_EQ(asked,
            std::vector<std::string>{"fusion/fused[teacher, pairing=pairs]"});
  EXPECT_THROW(forward->Get<at::Tensor>(FusedKey("vqa", "none")), c10::Error);
}

TEST(VqaTest, HiddenWidthIsTwiceTheFusionsUnlessGiven) {
  VqaConfig config = ListConfig();
  EXPECT_EQ((*Make(config))->named_parameters()["dense.weight"].sizes(),
            (std::vector<int64_t>{2 * kDim, kDim}));
  config.set_hidden(5);
  EXPECT_EQ((*Make(config))->named_parameters()["classifier.weight"].sizes(),
            (std::vector<int64_t>{4, 5}));
  EXPECT_TRUE((*Make(config))->can_fine_tune());
}

// ---- The evaluation, with predictions put in place of the head's.

absl::StatusOr<TaskResult> Evaluate(FakeEvalContext& context,
                                    std::map<std::string, int64_t> predicted,
                                    VqaConfig config = ListConfig()) {
  absl::StatusOr<std::shared_ptr<Task>> task = Make(config);
  if (!task.ok()) return task.status();
  context.Provide("vqa", [&](const ViewKey&, Forward& f) -> std::any {
    at::Tensor logits = at::randn({f.batch().num_texts(), 4}).clamp(-2, 2);
    for (int64_t t = 0; t < f.batch().num_texts(); ++t) {
      logits[t][predicted.at(f.batch().texts[t].id)] = 9;
    }
    return logits;
  });
  return (*task)->Evaluate(context);
}

struct Answered {
  bool number = false;
  std::string id, answer;
};

std::vector<Answered> ReadResult(const std::string& path) {
  std::vector<Answered> out;
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  EXPECT_EQ(parser.load(path).get(list), simdjson::SUCCESS) << path;
  for (simdjson::dom::element item : list) {
    Answered a;
    std::string_view text;
    int64_t number = 0;
    a.number = item["question_id"].get(number) == simdjson::SUCCESS;
    if (a.number) {
      a.id = std::to_string(number);
    } else {
      EXPECT_EQ(item["question_id"].get(text), simdjson::SUCCESS);
      a.id = std::string(text);
    }
    EXPECT_EQ(item["answer"].get(text), simdjson::SUCCESS);
    a.answer = std::string(text);
    out.push_back(a);
  }
  return out;
}

// The official measure from the list of what each annotator said.
double Official(const std::string& answer,
                const std::vector<std::string>& said) {
  double sum = 0;
  for (size_t left_out = 0; left_out < said.size(); ++left_out) {
    int matches = 0;
    for (size_t i = 0; i < said.size(); ++i) {
      matches += i != left_out && said[i] == answer;
    }
    sum += std::min(1.0, matches / 3.0);
  }
  return sum / static_cast<double>(said.size());
}

TEST(VqaTest, ResultFileReadsBackAndScoresToTheSameNumber) {
  const std::map<std::string, std::vector<std::string>> said = {
      {"7", {"yes", "yes", "no", "no", "no", "no", "2", "2", "2", "2"}},
      {"8",
       {"yes", "yes", "yes", "yes", "yes", "yes", "yes", "yes", "yes", "no"}},
      {"x9", {"2", "no", "no", "no", "no", "no", "no", "no", "no", "no"}},
      {"010",
       {"a \"b\"\n", "a \"b\"\n", "a \"b\"\n", "no", "no", "no", "no", "no",
        "no", "no"}},
  };
  const std::map<std::string, int64_t> predicted = {
      {"7", 0}, {"8", 0}, {"x9", 2}, {"010", 3}};
  std::vector<TextRecord> questions;
  for (const auto& [id, answers] : said) {
    std::map<std::string, float> shares;
    for (const std::string& answer : answers) shares[answer] += 0.1f;
    questions.push_back(
        Question(id, "what", {shares.begin(), shares.end()}, 10));
  }
  FakeEvalContext context(
      {QuestionBatch({questions[0]}),
       QuestionBatch({questions[1], questions[2], questions[3]})});
  context.skipped_samples = 2;
  const auto result = Evaluate(context, predicted);
  ASSERT_TRUE(result.ok()) << result.status();

  ASSERT_EQ(result->files.size(), 1u);
  EXPECT_EQ(result->files[0], context.folder + "/vqa_result.json");
  const std::vector<Answered> read = ReadResult(result->files[0]);
  ASSERT_EQ(read.size(), 4u);
  double sum = 0;
  for (const Answered& a : read) {
    EXPECT_EQ(a.answer, kAnswers[predicted.at(a.id)]);
    EXPECT_EQ(a.number, a.id == "7" || a.id == "8") << a.id;
    sum += Official(a.answer, said.at(a.id));
  }
  EXPECT_GT(sum, 0);
  const TaskMetric& accuracy = MetricOf(*result, "accuracy");
  EXPECT_NEAR(accuracy.value, 100 * sum / 4, 1e-6);
  EXPECT_EQ(accuracy.chance, 25);
  EXPECT_TRUE(accuracy.headline);
  EXPECT_EQ(result->metrics.size(), 1u);  // No baselines were asked for.
  EXPECT_EQ(result->note, "4 questions, 4 answers; 2 bad samples are left out");
}

TEST(VqaTest, QuestionsWithoutAListedAnswerAreCountedAndWrong) {
  FakeEvalContext context({QuestionBatch(
      {Question("1", "a", {{"yes", 1.0f}}), Question("2", "b", {{"red", 1.0f}}),
       Question("3", "c", {{"red", 0.5f}, {"no", 0.5f}}, 2)})});
  const auto result = Evaluate(context, {{"1", 0}, {"2", 1}, {"3", 0}});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(MetricOf(*result, "accuracy").value, 100.0 / 3, 1e-9);
  EXPECT_TRUE(
      absl::StrContains(result->note, "; 1 questions have no answer in"))
      << result->note;
}

TEST(VqaTest, BaselinesReadNoImage) {
  // Training: "no" 3, "yes" 2 over all; "is it?" says yes; "how many?" says 2.
  FakeEvalContext context({QuestionBatch({
      Question("1", "is it?", {{"yes", 1.0f}}),
      Question("2", "how many?", {{"2", 1.0f}}),
      Question("3", "never seen", {{"no", 1.0f}}),
      Question("4", "is it?", {{"no", 1.0f}}),
  })});
  context.streams["train"] = {
      QuestionBatch({Question("", "is it?", {{"yes", 1.0f}}),
                     Question("", "is it?", {{"yes", 1.0f}}),
                     Question("", "is it?", {{"no", 1.0f}}),
                     Question("", "can it?", {{"no", 1.0f}})}),
      QuestionBatch({Question("", "can it?", {{"no", 1.0f}}),
                     Question("", "how many?", {{"2", 1.0f}})})};
  VqaConfig config = ListConfig();
  config.set_baseline_stream("train");
  auto result =
      Evaluate(context, {{"1", 0}, {"2", 2}, {"3", 1}, {"4", 1}}, config);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(MetricOf(*result, "accuracy").value, 100);
  EXPECT_EQ(MetricOf(*result, "baseline: majority answer").value, 50);
  EXPECT_EQ(MetricOf(*result, "baseline: best answer per question text").value,
            75);
  // The batches of the training stream were never run.
  EXPECT_EQ(context.forwards_made, 1);

  config.set_baseline_stream("nowhere");
  result = Evaluate(context, {{"1", 0}, {"2", 2}, {"3", 1}, {"4", 1}}, config);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
}

TEST(VqaTest, AQuestionWithoutAnswersIsAnError) {
  FakeEvalContext context({QuestionBatch(
      {Question("1", "a", {{"yes", 1.0f}}), Question("77", "what?", {})})});
  const auto result = Evaluate(context, {{"1", 0}, {"77", 1}});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(
      result.status().message(),
      "question \"what?\" (question_id \"77\") has no answer"))
      << result.status();
  // A result file of half the questions is worse than none.
  EXPECT_FALSE(PathExists(context.folder + "/vqa_result.json"));
}

TEST(VqaTest, AnEmptyStreamAndAFolderThatIsGoneAreErrors) {
  FakeEvalContext empty;
  EXPECT_EQ(Evaluate(empty, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  FakeEvalContext context(
      {QuestionBatch({Question("1", "a", {{"yes", 1.0f}})})});
  context.folder += "/gone";
  EXPECT_TRUE(absl::StrContains(
      Evaluate(context, {{"1", 0}}).status().message(), "vqa_result.json"));
}

TEST(VqaTest, BadAnswerLists) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"[\"yes\", \"no\"", ""},  // Any parser's message.
      {"{\"yes\": 0}", "expected a JSON list of strings"},
      {"[\"yes\", 2]", "item 1 of the list is not a string"},
      {"[\"yes\"]", "holds 1 answers, expected at least 2"},
      {"[]", "holds 0 answers"},
      {"[\"yes\", \"no\", \"yes\"]", "holds \"yes\" twice"},
  };
  for (const auto& [contents, message] : cases) {
    VqaConfig config;
    config.set_answer_list(AnswerFile(contents));
    const absl::Status status = Make(config).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << contents;
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), config.answer_list()))
        << status;
  }
  VqaConfig missing;
  missing.set_answer_list("/nowhere/answers.json");
  EXPECT_EQ(Make(missing).status().code(), absl::StatusCode::kNotFound);
}

TEST(VqaTest, TasksOfOneStageWriteFilesOfTheirOwn) {
  FakeEvalContext context(
      {QuestionBatch({Question("1", "a", {{"yes", 1.0f}})})});
  for (const auto& [instance, answer] :
       {std::pair<std::string, int64_t>{"val", 0}, {"test_dev", 1}}) {
    const auto task = Make(ListConfig(), instance);
    ASSERT_TRUE(task.ok()) << task.status();
    context.Provide(instance, [&, best = answer](const ViewKey&, Forward&) {
      return std::any(9 * at::one_hot(at::tensor({best}), 4).to(at::kFloat));
    });
    const auto result = (*task)->Evaluate(context);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->files[0],
              absl::StrCat(context.folder, "/", instance, "_result.json"));
  }
  EXPECT_EQ(ReadResult(context.folder + "/val_result.json")[0].answer, "yes");
  EXPECT_EQ(ReadResult(context.folder + "/test_dev_result.json")[0].answer,
            "no");
}

TEST(VqaTest, APlanNeedsTheNumberOfAnswersOnly) {
  VqaConfig config;
  config.set_answer_list("/nowhere/answers.json");
  const auto plan = [&] { return Make(config, "vqa", /*planning=*/true); };
  EXPECT_TRUE(absl::IsNotFound(plan().status()));
  config.set_expected_answers(3128);
  const auto task = plan();
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ((*task)->named_parameters()["classifier.bias"].size(0), 3128);
  // To train, the file must be there, and as long as was said.
  EXPECT_TRUE(absl::IsNotFound(Make(config).status()));
  config.set_answer_list(AnswerFile(ListJson(kAnswers)));
  for (bool planning : {false, true}) {
    EXPECT_TRUE(
        absl::StrContains(Make(config, "vqa", planning).status().message(),
                          "holds 4 answers, expected_answers is 3128"));
  }
  config.set_expected_answers(4);
  EXPECT_TRUE(Make(config).ok());
}

TEST(VqaTest, Validates) {
  VqaConfig config;
  config.set_answer_list("answers.json");
  EXPECT_TRUE(ValidateVqa(config).ok());
  const Contract contract = VqaContract("vqa", config, {});
  ASSERT_EQ(contract.files.size(), 1u);
  EXPECT_EQ(contract.files[0].path, "answers.json");
  EXPECT_NE(contract.Find(kAnswerLogits), nullptr);

  config.clear_answer_list();
  config.set_hidden(-1);
  config.set_expected_answers(1);
  config.set_fusion("");
  const std::string message(ValidateVqa(config).message());
  for (const char* part : {"answer_list: got nothing", "hidden: got -1",
                           "expected_answers: got 1", "fusion: "}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
}

}  // namespace
}  // namespace semvq
