#include <gtest/gtest.h>
#include <torch/types.h>

#include "absl/strings/match.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/plugin/registry.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "true_false/true_false.pb.h"

namespace mine {
namespace {

std::shared_ptr<semvq::Task> MakeTask() {
  semvq::ContractBook book;
  semvq::Contract fusion;
  fusion.provides = {{semvq::kFused, 4}};
  book.Add("fusion", fusion);
  semvq::PluginContext context;
  context.instance = "statements";
  context.book = &book;
  auto made =
      semvq::Registry::Global().Make<semvq::Task>(TrueFalseConfig(), context);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

semvq::Batch Statements(const std::vector<std::string>& labels) {
  semvq::Batch batch =
      semvq::TestBatch({.images = static_cast<int64_t>(labels.size())});
  for (size_t t = 0; t < labels.size(); ++t) {
    batch.texts[t].text = "statement " + std::to_string(t);
    batch.texts[t].answers.clear();
    if (!labels[t].empty()) batch.texts[t].answers = {{labels[t], 1.0f}};
  }
  return batch;
}

TEST(TrueFalse, LearnsFromLabelledStatementsAlone) {
  auto task = MakeTask();
  semvq::TestForward forward(Statements({"true", "maybe", "false"}));
  forward.student["statements"] = task.get();
  semvq::Tokens fused;
  fused.values = at::randn({3, 5, 4}, at::kDouble).requires_grad_();
  forward->Set(semvq::FusedKey("fusion", semvq::kFused), fused);
  const semvq::ObjectiveOutput out = task->Compute(*forward);

  const at::Tensor log_p = at::log_softmax(
      forward->Get<at::Tensor>(semvq::FusedKey("statements", "truth_logits")),
      1);
  EXPECT_NEAR(semvq::ValueOf(out.losses, "truth"),
              -(log_p[0][1] + log_p[2][0]).item<double>() / 2, 1e-9);
  semvq::SumOf(out.losses).backward();
  const at::Tensor gradient = fused.values.grad().abs().sum({1, 2});
  EXPECT_GT(gradient[0].item<double>(), 0);
  EXPECT_EQ(gradient[1].item<double>(), 0);
  EXPECT_GT(gradient[2].item<double>(), 0);
}

absl::StatusOr<semvq::TaskResult> Evaluate(semvq::FakeEvalContext& context) {
  auto task = MakeTask();
  // The head says "true" where the first feature is positive.
  for (auto& parameter : task->named_parameters()) {
    c10::NoGradGuard no_grad;
    parameter.value().zero_();
    if (parameter.key() == "head.weight") parameter.value()[1][0] = 1;
  }
  context.providers["statements"] = task.get();
  context.Provide("fusion", [](const semvq::ViewKey&, semvq::Forward& f) {
    semvq::Tokens fused;
    fused.values = at::ones({f.batch().num_texts(), 2, 4}, at::kDouble);
    fused.values[0].fill_(-1);
    return std::any(fused);
  });
  return task->Evaluate(context);
}

TEST(TrueFalse, CountsWhatItGotRightAndWhatItCouldNotJudge) {
  // Answers: false, true, true, true.
  semvq::FakeEvalContext context({Statements({"false", "true", "", "false"})});
  const auto result = Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(semvq::MetricOf(*result, "accuracy").value, 200.0 / 3, 1e-9);
  EXPECT_NEAR(semvq::MetricOf(*result, "accuracy").chance, 200.0 / 3, 1e-9);
  EXPECT_TRUE(absl::StrContains(result->note, "3 statements"));
  EXPECT_TRUE(absl::StrContains(result->note, "1 have no label"));
  ASSERT_EQ(result->files.size(), 1u);
  const auto text = semvq::ReadFile(result->files[0]);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_TRUE(absl::StrContains(
      *text, "{\"sentence\": \"statement 0\", \"prediction\": false}"));
  EXPECT_TRUE(absl::StrContains(
      *text, "{\"sentence\": \"statement 2\", \"prediction\": true}"));
}

TEST(TrueFalse, StatementsWithoutLabelsAreAnError) {
  semvq::FakeEvalContext context({Statements({"", "maybe"})});
  const absl::Status status = Evaluate(context).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(
      absl::StrContains(status.message(), "got 2 statements without a label"))
      << status;
}

}  // namespace
}  // namespace mine
