#include "core/task/classification.h"

#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/testing.h"
#include "core/util/file.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 5;

ClassificationOptions Options() {
  ClassificationOptions options;
  options.instance = "task";
  options.fusion = "fusion";
  return options;
}

LabelSet Labels() { return LabelSet({"no", "maybe", "yes"}, "-"); }

std::shared_ptr<ClassificationTask> Make(
    const ClassificationOptions& options = Options()) {
  torch::manual_seed(6);
  return std::make_shared<ClassificationTask>(options, Labels(), kDim);
}

TextRecord Labelled(const std::string& id, const std::string& label,
                    const std::string& text = "") {
  TextRecord record;
  record.id = id;
  record.text = text.empty() ? "text " + id : text;
  if (!label.empty()) record.answers = {{label, 1.0f}};
  return record;
}

Batch BatchOf(const std::vector<TextRecord>& records) {
  TestBatchOptions options;
  options.images = static_cast<int64_t>(records.size());
  Batch batch = TestBatch(options);
  batch.texts = records;
  return batch;
}

// ---- Training.

class ClassificationObjectiveTest : public testing::Test {
 protected:
  void SetUp() override {
    task = Make();
    task->to(at::kDouble);
    // One without a label, one without an agreed label: no weight.
    batch = BatchOf({Labelled("0", "yes"), Labelled("1", "No"),
                     Labelled("2", "maybe"), Labelled("3", "-"),
                     Labelled("4", ""), Labelled("5", "yes")});
    torch::manual_seed(7);
    fused = at::randn({6, 3, kDim}, at::kDouble).requires_grad_(true);
    teacher_fused = at::randn({6, 3, kDim}, at::kDouble);
  }

  ObjectiveOutput Compute(bool with_teacher = false, int64_t step = 0) {
    TestForward forward(batch, with_teacher, {true, 7, step});
    FakeProvider student([&](const ViewKey& key, Forward&) -> std::any {
      EXPECT_EQ(ToString(key), "fusion/fused");
      Tokens tokens;
      tokens.values = fused;
      return tokens;
    });
    FakeProvider teacher([&](const ViewKey& key, Forward&) -> std::any {
      EXPECT_EQ(ToString(key), "fusion/fused[teacher]");
      Tokens tokens;
      tokens.values = teacher_fused;
      return tokens;
    });
    forward.student = {{"fusion", &student}, {"task", task.get()}};
    forward.teacher = {{"fusion", &teacher}, {"task", task.get()}};
    return task->Compute(*forward);
  }

  at::Tensor LogitsOf(const at::Tensor& values) const {
    const auto p = task->named_parameters();
    return at::linear(at::relu(at::linear(values.select(1, 0),
                                          p["dense.weight"], p["dense.bias"])),
                      p["classifier.weight"], p["classifier.bias"])
        .detach();
  }

  std::shared_ptr<ClassificationTask> task;
  Batch batch;
  at::Tensor fused, teacher_fused;
  const std::map<int64_t, int64_t> truth = {{0, 2}, {1, 0}, {2, 1}, {5, 2}};
};

TEST_F(ClassificationObjectiveTest, LossIsTheCrossEntropyOfTheLabels) {
  const ObjectiveOutput out = Compute();
  const at::Tensor logits = LogitsOf(fused);
  const at::Tensor log_p = at::log_softmax(logits, 1);
  double loss = 0, correct = 0;
  for (const auto& [row, label] : truth) {
    loss -= log_p[row][label].item<double>() / 4;
    correct += logits[row].argmax().item<int64_t>() == label;
  }
  EXPECT_NEAR(ValueOf(out.losses, "label"), loss, 1e-12);
  EXPECT_NEAR(ValueOf(out.metrics, "accuracy"), correct / 4, 1e-6);
}

// ALBEF's: (1 - alpha) CE - alpha sum(log_softmax(student) softmax(teacher)).
TEST_F(ClassificationObjectiveTest, TheTeachersShareGrowsToAlpha) {
  ClassificationOptions options = Options();
  options.alpha = 0.4;
  options.alpha_ramp_steps = 10;
  task = Make(options);
  task->to(at::kDouble);
  const at::Tensor log_p = at::log_softmax(LogitsOf(fused), 1);
  const at::Tensor soft = at::softmax(LogitsOf(teacher_fused), 1);
  for (const auto& [step, alpha] :
       {std::pair<int64_t, double>{0, 0.0}, {5, 0.2}, {10, 0.4}, {99, 0.4}}) {
    double loss = 0;
    for (const auto& [row, label] : truth) {
      loss -= (1 - alpha) * log_p[row][label].item<double>() / 4;
      loss -= alpha * (log_p[row] * soft[row]).sum().item<double>() / 4;
    }
    EXPECT_NEAR(ValueOf(Compute(true, step).losses, "label"), loss, 1e-12)
        << step;
  }
  // Without a teacher targets are hard.
  double hard = 0;
  for (const auto& [row, label] : truth)
    hard -= log_p[row][label].item<double>() / 4;
  EXPECT_NEAR(ValueOf(Compute(false, 99).losses, "label"), hard, 1e-12);
}

TEST_F(ClassificationObjectiveTest, GradientEqualsDifferences) {
  for (double alpha : {0.0, 0.7}) {
    ClassificationOptions options = Options();
    options.alpha = alpha;
    task = Make(options);
    task->to(at::kDouble);
    std::vector<at::Tensor> inputs = task->parameters();
    ASSERT_EQ(inputs.size(), 4u);
    if (alpha > 0) {
      // The head is the teacher's too here, and passes no gradient there.
      inputs.clear();
    }
    inputs.push_back(fused);
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>&) {
          return SumOf(Compute(alpha > 0, 5).losses);
        },
        inputs);
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(ClassificationObjectiveTest, UnknownLabelsThrowAndNoneIsNoLoss) {
  for (TextRecord& text : batch.texts) text.answers.clear();
  const at::Tensor loss = SumOf(Compute().losses);
  EXPECT_EQ(loss.item<double>(), 0);
  batch.texts[3].answers = {{"perhaps", 1.0f}};
  try {
    Compute();
    FAIL() << "an unknown label was trained on";
  } catch (const c10::Error& e) {
    EXPECT_TRUE(absl::StrContains(e.what(), "\"perhaps\"")) << e.what();
    EXPECT_TRUE(absl::StrContains(e.what(), "no, maybe, yes")) << e.what();
  }
}

TEST_F(ClassificationObjectiveTest, HalfPrecisionGivesAFloatLoss) {
  task->to(at::kBFloat16);
  fused = fused.detach().to(at::kBFloat16);
  const at::Tensor loss = SumOf(Compute().losses);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
}

TEST(ClassificationTest, AHiddenWidthMayBeGivenAndAClassifierBorrowed) {
  ClassificationOptions options = Options();
  EXPECT_EQ(Make(options)->named_parameters()["dense.weight"].sizes(),
            (std::vector<int64_t>{kDim, kDim}));
  options.hidden = 7;
  EXPECT_EQ(Make(options)->named_parameters()["classifier.weight"].sizes(),
            (std::vector<int64_t>{3, 7}));
  EXPECT_TRUE(Make(options)->can_fine_tune());
  EXPECT_EQ(ClassificationContract(options, Labels()).provides[0].dim, 3);
  options.classifier = "other";
  EXPECT_TRUE(Make(options)->parameters().empty());
  EXPECT_FALSE(Make(options)->can_fine_tune());
  const Contract contract = ClassificationContract(options, Labels());
  EXPECT_TRUE(contract.provides.empty());
  ASSERT_EQ(contract.needs.size(), 1u);
  EXPECT_EQ(contract.needs[0].instance, "other");
  EXPECT_EQ(contract.needs[0].dim, 3);
}

// ---- Evaluation, with logits put in place of the head's.

// The label each text is given.
using Predictions = std::map<std::string, int64_t>;

void Predict(FakeEvalContext& context, const Predictions& predictions,
             const std::string& instance = "task") {
  context.Provide(
      instance, [predictions](const ViewKey& key, Forward& f) -> std::any {
        EXPECT_EQ(key.view, kClassLogits);
        at::Tensor logits = at::randn({f.batch().num_texts(), 3}).clamp(-2, 2);
        for (int64_t t = 0; t < f.batch().num_texts(); ++t)
          logits[t][predictions.at(f.batch().texts[t].id)] = 9;
        return logits;
      });
}

struct ReadBack {
  int64_t examples = 0, skipped = 0, ignored = 0;
  double accuracy = 0;
  std::vector<std::vector<int64_t>> confusion;
  std::vector<std::string> labels;
  std::vector<std::array<std::string, 5>> predictions;
};

ReadBack Read(const std::string& path) {
  ReadBack out;
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  EXPECT_EQ(parser.load(path).get(root), simdjson::SUCCESS) << path;
  out.examples = int64_t{root["examples"]};
  out.skipped = int64_t{root["skipped"]};
  out.ignored = int64_t{root["ignored"]};
  out.accuracy = double{root["accuracy"]};
  for (simdjson::dom::element label : root["labels"])
    out.labels.emplace_back(std::string_view(label));
  for (simdjson::dom::element row : root["confusion"]) {
    out.confusion.emplace_back();
    for (simdjson::dom::element count : row)
      out.confusion.back().push_back(int64_t{count});
  }
  for (simdjson::dom::element p : root["predictions"]) {
    std::array<std::string, 5> fields;
    const char* const names[] = {"id", "image", "text", "label", "prediction"};
    for (int i = 0; i < 5; ++i)
      fields[i] = std::string(std::string_view(p[names[i]]));
    out.predictions.push_back(fields);
  }
  return out;
}

TEST(ClassificationEvaluationTest, TheResultFileScoresToTheSameNumbers) {
  FakeEvalContext context(
      {BatchOf({Labelled("1", "yes"), Labelled("2", "no", "a \"b\"\n")}),
       BatchOf({Labelled("3", "yes"), Labelled("4", "-"),
                Labelled("5", "maybe")})});
  context.skipped_samples = 2;
  Predict(context, {{"1", 2}, {"2", 1}, {"3", 0}, {"4", 0}, {"5", 1}});
  const auto result = Make()->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->files,
            std::vector<std::string>{context.folder + "/task_result.json"});

  const ReadBack read = Read(result->files[0]);
  EXPECT_EQ(read.labels, (std::vector<std::string>{"no", "maybe", "yes"}));
  EXPECT_EQ(read.examples, 4);
  EXPECT_EQ(read.skipped, 2);
  EXPECT_EQ(read.ignored, 1);
  ASSERT_EQ(read.predictions.size(), 4u);
  EXPECT_EQ(
      read.predictions[1],
      (std::array<std::string, 5>{"2", "image1", "a \"b\"\n", "no", "maybe"}));
  // Recounted from the predictions alone.
  std::map<std::pair<std::string, std::string>, int64_t> counts;
  double correct = 0;
  for (const auto& p : read.predictions) {
    ++counts[{p[3], p[4]}];
    correct += p[3] == p[4];
  }
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      EXPECT_EQ(read.confusion[i][j],
                (counts[{read.labels[i], read.labels[j]}]));
    }
  }
  EXPECT_EQ(correct, 2);
  EXPECT_EQ(read.accuracy, correct / 4);
  const TaskMetric& accuracy = MetricOf(*result, "accuracy");
  EXPECT_EQ(accuracy.value, 50);
  EXPECT_NEAR(accuracy.chance, 100.0 / 3, 1e-12);
  EXPECT_TRUE(accuracy.headline);
  EXPECT_EQ(MetricOf(*result, "accuracy: yes").value, 50);
  EXPECT_EQ(MetricOf(*result, "accuracy: maybe").value, 100);
  EXPECT_EQ(MetricOf(*result, "examples: yes").value, 2);
  EXPECT_EQ(MetricOf(*result, "left out").value, 3);
  EXPECT_EQ(result->note,
            "4 examples, 3 labels; 1 without an agreed label are left out; 2 "
            "bad samples are left out");
}

TEST(ClassificationEvaluationTest, ALabelThatDoesNotOccurHasNoAccuracy) {
  FakeEvalContext context({BatchOf({Labelled("1", "yes")})});
  Predict(context, {{"1", 2}});
  const auto result = Make()->Evaluate(context);
  ASSERT_TRUE(result.ok());
  EXPECT_THROW(MetricOf(*result, "accuracy: no"), std::out_of_range);
  EXPECT_EQ(MetricOf(*result, "examples: no").value, 0);
}

// A real head on made-up tokens, so that the batches matter if they can.
TEST(ClassificationEvaluationTest, BatchesDoNotMatter) {
  std::vector<TextRecord> records;
  const char* const names[] = {"no", "maybe", "yes"};
  for (int i = 0; i < 12; ++i)
    records.push_back(Labelled(absl::StrCat(i), names[i % 3]));
  const auto task = Make();
  std::vector<std::string> contents;
  for (size_t size : {1, 5, 12}) {
    FakeEvalContext context;
    for (size_t i = 0; i < records.size(); i += size) {
      Batch batch =
          BatchOf({records.begin() + i,
                   records.begin() + std::min(i + size, records.size())});
      for (size_t k = 0; k < batch.image_ids.size(); ++k)
        batch.image_ids[k] = absl::StrCat("image", i + k);
      context.streams[""].push_back(batch);
    }
    context.Provide("fusion", [](const ViewKey&, Forward& f) -> std::any {
      Tokens tokens;
      tokens.values = at::empty({f.batch().num_texts(), 2, kDim});
      for (int64_t t = 0; t < f.batch().num_texts(); ++t) {
        torch::manual_seed(std::stoi(f.batch().texts[t].id));
        tokens.values[t].normal_(0, 5);
      }
      return tokens;
    });
    context.providers["task"] = task.get();
    at::NoGradGuard no_grad;
    const auto result = task->Evaluate(context);
    ASSERT_TRUE(result.ok()) << result.status();
    contents.push_back(*ReadFile(result->files[0]));
  }
  EXPECT_EQ(contents[0], contents[1]);
  EXPECT_EQ(contents[0], contents[2]);
  EXPECT_TRUE(absl::StrContains(contents[0], "\"prediction\": \"no\""));
  EXPECT_TRUE(absl::StrContains(contents[0], "\"prediction\": \"yes\""));
}

TEST(ClassificationEvaluationTest, BaselinesReadNoImage) {
  // Training: "no" 3, "yes" 2 over all; "is it?" says yes.
  FakeEvalContext context({BatchOf(
      {Labelled("1", "yes", "is it?"), Labelled("2", "no", "never seen"),
       Labelled("3", "no", "is it?"), Labelled("4", "maybe", "can it?")})});
  context.streams["train"] = {
      BatchOf({Labelled("", "yes", "is it?"), Labelled("", "yes", "is it?"),
               Labelled("", "no", "is it?"), Labelled("", "no", "can it?"),
               Labelled("", "no", "may it?"), Labelled("", "-", "is it?")})};
  Predict(context, {{"1", 0}, {"2", 0}, {"3", 0}, {"4", 0}});
  ClassificationOptions options = Options();
  options.baseline_stream = "train";
  auto result = Make(options)->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(MetricOf(*result, "baseline: majority label").value, 50);
  EXPECT_EQ(MetricOf(*result, "baseline: best label per text").value, 50);
  EXPECT_EQ(context.forwards_made, 1);

  context.streams["train"][0].texts[0].answers = {{"perhaps", 1.0f}};
  const absl::Status status = Make(options)->Evaluate(context).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "\"perhaps\"")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "\"train\"")) << status;
  options.baseline_stream = "nowhere";
  EXPECT_EQ(Make(options)->Evaluate(context).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ClassificationEvaluationTest, ABorrowedClassifierAnswers) {
  FakeEvalContext context({BatchOf({Labelled("1", "yes")})});
  Predict(context, {{"1", 2}}, "trained");
  ClassificationOptions options = Options();
  options.classifier = "trained";
  const auto result = Make(options)->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(MetricOf(*result, "accuracy").value, 100);
}

TEST(ClassificationEvaluationTest, NothingIsLeftOutInSilence) {
  for (const auto& [bad, message] :
       std::vector<std::pair<TextRecord, std::string>>{
           {Labelled("7", ""), "the text \"text 7\" (7): got no label"},
           {Labelled("7", "perhaps"),
            "got the label \"perhaps\", expected one "
            "of no, maybe, yes"}}) {
    FakeEvalContext context({BatchOf({Labelled("1", "yes"), bad})});
    Predict(context, {{"1", 2}, {"7", 2}});
    const absl::Status status = Make()->Evaluate(context).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
    EXPECT_TRUE(absl::StartsWith(status.message(), "task task: ")) << status;
    EXPECT_FALSE(PathExists(context.folder + "/task_result.json"));
  }
  FakeEvalContext empty;
  EXPECT_EQ(Make()->Evaluate(empty).status().code(),
            absl::StatusCode::kFailedPrecondition);
  FakeEvalContext ignored({BatchOf({Labelled("1", "-")})});
  Predict(ignored, {{"1", 2}});
  EXPECT_EQ(Make()->Evaluate(ignored).status().code(),
            absl::StatusCode::kFailedPrecondition);

  FakeEvalContext context({BatchOf({Labelled("1", "yes")})});
  ClassificationOptions two = Options();
  two.image_slots = 2;
  Predict(context, {{"1", 2}});
  EXPECT_TRUE(absl::StrContains(Make(two)->Evaluate(context).status().message(),
                                "have 1 images, expected 2"));
  context.Provide("task", [](const ViewKey&, Forward&) -> std::any {
    return at::full({1, 3}, std::nan(""));
  });
  EXPECT_EQ(Make()->Evaluate(context).status().code(),
            absl::StatusCode::kFailedPrecondition);
  Predict(context, {{"1", 2}});
  context.folder += "/gone";
  EXPECT_TRUE(absl::StrContains(Make()->Evaluate(context).status().message(),
                                "task_result.json"));
}

}  // namespace
}  // namespace semvq
