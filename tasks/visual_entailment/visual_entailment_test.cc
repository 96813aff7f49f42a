#include "tasks/visual_entailment/visual_entailment.h"

#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/plugin/task.h"
#include "core/util/file.h"

namespace semvq {
namespace {

std::shared_ptr<Task> Make() {
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, 6}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = "ve";
  context.book = &book;
  auto task = MakeVisualEntailment(VisualEntailmentConfig(), context);
  EXPECT_TRUE(task.ok()) << task.status();
  return *task;
}

const char* const kNames[] = {"contradiction", "neutral", "entailment"};

TEST(VisualEntailmentTest, TheResultFileScoresToTheSameNumbers) {
  // Truth and prediction by example.
  const std::vector<std::pair<int, int>> pairs = {
      {0, 0}, {0, 2}, {1, 1}, {1, 1}, {2, 2}, {2, 1}, {2, 2}, {0, 1}, {1, 0}};
  TestBatchOptions options;
  options.images = static_cast<int64_t>(pairs.size()) + 1;
  Batch batch = TestBatch(options);
  for (size_t i = 0; i < pairs.size(); ++i) {
    batch.texts[i].id = absl::StrCat("36979.jpg#", i, "r1e");
    batch.texts[i].text = "a sentence";
    batch.texts[i].answers = {{kNames[pairs[i].first], 1.0f}};
  }
  batch.texts.back().answers = {{"-", 1.0f}};  // SNLI: no majority.
  FakeEvalContext context({batch});
  context.Provide("ve", [&](const ViewKey&, Forward&) -> std::any {
    at::Tensor logits = at::zeros({options.images, 3});
    for (size_t i = 0; i < pairs.size(); ++i) logits[i][pairs[i].second] = 1;
    return logits;
  });
  const auto result = Make()->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->files,
            std::vector<std::string>{context.folder + "/ve_result.json"});

  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ASSERT_EQ(parser.load(result->files[0]).get(root), simdjson::SUCCESS);
  std::map<std::string, std::map<std::string, int64_t>> counts;
  double correct = 0, all = 0;
  for (simdjson::dom::element p : root["predictions"]) {
    const std::string label{std::string_view(p["label"])};
    const std::string predicted{std::string_view(p["prediction"])};
    ++counts[label][predicted];
    correct += label == predicted;
    ++all;
  }
  EXPECT_EQ(all, 9);
  EXPECT_EQ(correct, 5);
  EXPECT_EQ(MetricOf(*result, "accuracy").value, 100 * (correct / all));
  EXPECT_EQ(int64_t{root["ignored"]}, 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(std::string_view(root["labels"].at(i)), kNames[i]);
    int64_t of_class = 0;
    for (int j = 0; j < 3; ++j) {
      EXPECT_EQ(int64_t{root["confusion"].at(i).at(j)},
                counts[kNames[i]][kNames[j]]);
      of_class += counts[kNames[i]][kNames[j]];
    }
    EXPECT_NEAR(MetricOf(*result, absl::StrCat("accuracy: ", kNames[i])).value,
                100.0 * static_cast<double>(counts[kNames[i]][kNames[i]]) /
                    static_cast<double>(of_class),
                1e-9);
  }
}

TEST(VisualEntailmentTest, UnknownLabelsAreErrors) {
  Batch batch = TestBatch();
  for (TextRecord& text : batch.texts) text.answers = {{"entails", 1.0f}};
  FakeEvalContext context({batch});
  context.Provide("ve", [](const ViewKey&, Forward& f) -> std::any {
    return at::zeros({f.batch().num_texts(), 3});
  });
  const absl::Status status = Make()->Evaluate(context).status();
  EXPECT_TRUE(absl::StrContains(
      status.message(), "expected one of contradiction, neutral, entailment"))
      << status;
}

TEST(VisualEntailmentTest, TheClassifierIsAlbefs) {
  const auto parameters = Make()->named_parameters();
  EXPECT_EQ(parameters["dense.weight"].sizes(), (std::vector<int64_t>{6, 6}));
  EXPECT_EQ(parameters["classifier.weight"].sizes(),
            (std::vector<int64_t>{3, 6}));
  EXPECT_TRUE(Make()->can_fine_tune());
}

TEST(VisualEntailmentTest, Validates) {
  VisualEntailmentConfig config;
  EXPECT_TRUE(ValidateVisualEntailment(config).ok());
  EXPECT_EQ(VisualEntailmentContract("ve", config, {}).provides[0].dim, 3);
  config.set_alpha(-0.1);
  EXPECT_TRUE(absl::StrContains(ValidateVisualEntailment(config).message(),
                                "alpha: got -0.1"));
}

}  // namespace
}  // namespace semvq
