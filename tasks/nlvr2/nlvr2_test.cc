#include "tasks/nlvr2/nlvr2.h"

#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/plugin/task.h"
#include "core/util/file.h"

namespace semvq {
namespace {

absl::StatusOr<std::shared_ptr<Task>> Make(const Nlvr2Config& config = {},
                                           const std::string& name = "nlvr2") {
  static const ContractBook* book = [] {
    auto* b = new ContractBook;
    Contract fusion;
    fusion.provides = {{kFused, 6}};
    b->Add("fusion", fusion);
    return b;
  }();
  PluginContext context;
  context.instance = name;
  context.book = book;
  return MakeNlvr2(config, context);
}

struct Statement {
  std::string id, label;
  bool predicted = false;
  std::string text = "a statement", images = "a.png b.png";
};

Batch BatchOf(const std::vector<Statement>& statements) {
  TestBatchOptions options;
  options.images = static_cast<int64_t>(statements.size());
  Batch batch = TestBatch(options);
  batch.images = batch.images.expand({-1, 2, -1, -1, -1});
  for (size_t i = 0; i < statements.size(); ++i) {
    batch.texts[i].id = statements[i].id;
    batch.texts[i].text = statements[i].text;
    batch.texts[i].answers = {{statements[i].label, 1.0f}};
    batch.image_ids[i] = statements[i].images;
  }
  return batch;
}

absl::StatusOr<TaskResult> Evaluate(FakeEvalContext& context,
                                    const std::vector<Statement>& statements) {
  context.streams[""] = {BatchOf(statements)};
  context.Provide("nlvr2", [&](const ViewKey& key, Forward&) -> std::any {
    EXPECT_EQ(key.view, "class_logits");
    at::Tensor logits = at::zeros({static_cast<int64_t>(statements.size()), 2});
    for (size_t i = 0; i < statements.size(); ++i)
      logits[i][statements[i].predicted ? 1 : 0] = 1;
    return logits;
  });
  auto task = Make();
  if (!task.ok()) return task.status();
  return (*task)->Evaluate(context);
}

// What the official script does with the CSV and the labels: accuracy, and
// consistency over identifiers without their third part.
std::pair<double, double> Official(const std::string& csv,
                                   const std::vector<Statement>& labelled) {
  std::map<std::string, std::string> predictions;
  for (absl::string_view line : absl::StrSplit(csv, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, ',');
    EXPECT_EQ(fields.size(), 2u) << line;
    predictions[fields[0]] = fields[1];
  }
  EXPECT_EQ(predictions.size(), labelled.size());
  double correct = 0;
  std::set<std::string> all, wrong;
  for (const Statement& s : labelled) {
    std::vector<std::string> parts = absl::StrSplit(s.id, '-');
    parts[2] = "";
    const std::string key = absl::StrJoin(parts, "-");
    all.insert(key);
    if (absl::EqualsIgnoreCase(predictions.at(s.id), s.label)) {
      ++correct;
    } else {
      wrong.insert(key);
    }
  }
  return {correct / static_cast<double>(labelled.size()),
          static_cast<double>(all.size() - wrong.size()) /
              static_cast<double>(all.size())};
}

TEST(Nlvr2Test, TheOfficialFileScoresToTheSameNumbers) {
  const std::vector<Statement> statements = {
      {"dev-850-0-0", "True", true},   {"dev-850-1-0", "False", false},
      {"dev-850-2-0", "false", false}, {"dev-850-0-1", "True", true},
      {"dev-850-1-1", "true", false},  {"dev-7-0-0", "False", true},
      {"test1-850-3-0", "True", true},
  };
  FakeEvalContext context;
  const auto result = Evaluate(context, statements);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->files.size(), 2u);
  EXPECT_EQ(result->files[0], context.folder + "/nlvr2_predictions.csv");
  const std::string csv = *ReadFile(result->files[0]);
  EXPECT_TRUE(absl::StartsWith(csv, "dev-850-0-0,True\ndev-850-1-0,False\n"));
  const auto [accuracy, consistency] = Official(csv, statements);
  EXPECT_EQ(accuracy, 5.0 / 7);
  EXPECT_EQ(consistency, 2.0 / 4);
  EXPECT_EQ(MetricOf(*result, "accuracy").value, 100 * accuracy);
  EXPECT_EQ(MetricOf(*result, "accuracy").chance, 50);
  EXPECT_EQ(MetricOf(*result, "consistency").value, 100 * consistency);
  EXPECT_NEAR(MetricOf(*result, "consistency").chance,
              100 * (1.0 / 8 + 1.0 / 4 + 1.0 / 2 + 1.0 / 2) / 4, 1e-9);
  EXPECT_TRUE(MetricOf(*result, "consistency").headline);
  EXPECT_EQ(MetricOf(*result, "examples: True").value, 4);
  EXPECT_EQ(MetricOf(*result, "accuracy: False").value, 100 * (2.0 / 3));

  simdjson::dom::parser parser;
  simdjson::dom::element root;
  ASSERT_EQ(parser.load(result->files[1]).get(root), simdjson::SUCCESS);
  EXPECT_EQ(double{root["consistency"]}, consistency);
  EXPECT_EQ(double{root["accuracy"]}, accuracy);
  EXPECT_EQ(double{root["statements"]}, 4);
}

TEST(Nlvr2Test, AlbefsRecordsAreToldByTheirImages) {
  const auto images = [](int set, int pair) {
    return absl::StrCat("dev/dev-", set, "-", pair, "-img0.png dev/dev-", set,
                        "-", pair, "-img1.png");
  };
  FakeEvalContext context;
  const auto result =
      Evaluate(context, {{"", "True", true, "two dogs", images(1, 0)},
                         {"", "True", false, "two dogs", images(1, 1)},
                         {"", "False", false, "a cat", images(1, 1)},
                         {"", "False", false, "two dogs", images(2, 0)}});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(MetricOf(*result, "consistency").value, 200.0 / 3, 1e-9);
  EXPECT_TRUE(absl::StrContains(result->note, "no identifiers"))
      << result->note;
  ASSERT_EQ(result->files.size(), 1u);  // No CSV for the official script.
}

TEST(Nlvr2Test, BadRecordsAreErrors) {
  for (const auto& [statements, message] :
       std::vector<std::pair<std::vector<Statement>, std::string>>{
           {{{"dev-1-0-0", "perhaps"}}, "expected one of False, True"},
           {{{"dev-1-0-0", "True"}, {"dev-1-0-0", "True"}}, "occurs twice"},
           {{{"dev-1-0-0", "True"}, {"", "True"}}, "1 of 2 examples"},
           {{{"dev-1-0-0,5", "True"}}, "with a comma"},
           {{{"5", "True"}}, "expected split-set-pair-sentence"}}) {
    FakeEvalContext context;
    const absl::Status status = Evaluate(context, statements).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
    EXPECT_FALSE(PathExists(context.folder + "/nlvr2_result.json"));
  }
  FakeEvalContext context;
  context.streams[""] = {TestBatch()};  // One image each.
  EXPECT_TRUE(absl::StrContains((*Make())->Evaluate(context).status().message(),
                                "have 1 images, expected 2"));
}

TEST(Nlvr2Test, TheClassifierIsAlbefs) {
  auto task = Make();
  ASSERT_TRUE(task.ok());
  EXPECT_TRUE((*task)->can_fine_tune());
  const auto parameters = (*task)->named_parameters();
  EXPECT_EQ(parameters["dense.weight"].sizes(), (std::vector<int64_t>{6, 6}));
  EXPECT_EQ(parameters["classifier.weight"].sizes(),
            (std::vector<int64_t>{2, 6}));
  EXPECT_EQ(parameters.size(), 4u);
}

TEST(Nlvr2Test, Validates) {
  Nlvr2Config config;
  EXPECT_TRUE(ValidateNlvr2(config).ok());
  const Contract contract = Nlvr2Contract("nlvr2", config, {});
  ASSERT_EQ(contract.provides.size(), 1u);
  EXPECT_EQ(contract.provides[0].dim, 2);
  config.set_alpha(1.5);
  config.set_alpha_ramp_steps(-1);
  config.set_hidden(-1);
  config.set_fusion("");
  const absl::Status status = ValidateNlvr2(config);
  for (const char* field :
       {"alpha: ", "alpha_ramp_steps: ", "hidden: ", "fusion: "})
    EXPECT_TRUE(absl::StrContains(status.message(), field)) << status;
}

}  // namespace
}  // namespace semvq
