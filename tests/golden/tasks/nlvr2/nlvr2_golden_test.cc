// NLVR2's accuracy and consistency against a script written from the official
// one: 1,200 cases, exactly.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/confusion.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "core/util/json.h"
#include "tasks/nlvr2/consistency.h"
#include "tasks/nlvr2/nlvr2.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/nlvr2/", name);
}

struct Example {
  std::string identifier, label, prediction;
};

struct Case {
  std::vector<Example> examples;
  double accuracy = 0, consistency = 0;
  int64_t statements = 0;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const auto file = ReadFile(Fixture("cases.jsonl"));
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok()) return cases;
  dom::parser parser;
  bool head = true;
  for (absl::string_view line :
       absl::StrSplit(*file, '\n', absl::SkipEmpty())) {
    dom::element value;
    EXPECT_EQ(parser.parse(line.data(), line.size()).get(value),
              simdjson::SUCCESS);
    if (head) {
      head = false;
      EXPECT_EQ(Sha256Hex(absl::StrCat(*ReadFile(Fixture("generate.py")),
                                       *ReadFile(Fixture("score.py")))),
                std::string(std::string_view(value["generator"])))
          << "run generate.py again";
      continue;
    }
    Case c;
    for (dom::element e : value.at(0)) {
      c.examples.push_back({std::string(std::string_view(e.at(0))),
                            std::string(std::string_view(e.at(1))),
                            std::string(std::string_view(e.at(2)))});
    }
    c.accuracy = double{value.at(1)};
    c.consistency = double{value.at(2)};
    c.statements = int64_t{value.at(3)};
    cases.push_back(c);
  }
  EXPECT_GE(cases.size(), 1000u);
  return cases;
}

TEST(Nlvr2Golden, MeasuresEqualTheScripts) {
  int consistent = 0;
  for (const Case& c : Cases()) {
    std::vector<JudgedStatement> judged;
    ConfusionMatrix confusion(2);
    for (const Example& e : c.examples) {
      const bool truth = absl::EqualsIgnoreCase(e.label, "true");
      const bool predicted = e.prediction == "True";
      judged.push_back({e.identifier, "", "", truth == predicted});
      confusion.Add(truth, predicted);
    }
    const auto measured = MeasureConsistency(judged);
    ASSERT_TRUE(measured.ok()) << measured.status();
    EXPECT_EQ(measured->share(), c.consistency);
    EXPECT_EQ(measured->statements, c.statements);
    EXPECT_EQ(confusion.Accuracy(), c.accuracy);
    consistent += c.consistency > 0 && c.consistency < 1;
  }
  EXPECT_GT(consistent, 100);  // The cases are no trivial ones.
}

// The task's numbers, and what score.py makes of the files it writes.
TEST(Nlvr2Golden, TheOfficialFileScoresToTheSameNumbers) {
  const std::vector<Case> cases = Cases();
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, 4}};
  book.Add("fusion", fusion);
  PluginContext plugin;
  plugin.instance = "nlvr2";
  plugin.book = &book;
  auto task = MakeNlvr2(Nlvr2Config(), plugin);
  ASSERT_TRUE(task.ok()) << task.status();
  FakeEvalContext context;
  for (size_t i = 0; i < cases.size(); i += 60) {
    const Case& c = cases[i];
    TestBatchOptions options;
    options.images = static_cast<int64_t>(c.examples.size());
    Batch batch = TestBatch(options);
    batch.images = batch.images.expand({-1, 2, -1, -1, -1});
    at::Tensor logits = at::zeros({options.images, 2});
    std::string labels;
    for (size_t j = 0; j < c.examples.size(); ++j) {
      const Example& e = c.examples[j];
      batch.texts[j].id = e.identifier;
      batch.texts[j].text = "a statement";
      batch.texts[j].answers = {{e.label, 1.0f}};
      logits[j][e.prediction == "True"] = 1;
      absl::StrAppend(&labels, "{\"identifier\": ", JsonString(e.identifier),
                      ", \"label\": ", JsonString(e.label), "}\n");
    }
    context.streams[""] = {batch};
    context.Provide(
        "nlvr2", [&](const ViewKey&, Forward&) -> std::any { return logits; });
    const auto result = (*task)->Evaluate(context);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(MetricOf(*result, "accuracy").value, 100 * c.accuracy);
    EXPECT_EQ(MetricOf(*result, "consistency").value, 100 * c.consistency);

    const std::string file = context.folder + "/labels.jsonl";
    ASSERT_TRUE(AtomicWriteFile(file, labels).ok());
    std::FILE* out = popen(absl::StrCat("python3 ", Fixture("score.py"), " ",
                                        result->files[0], " ", file)
                               .c_str(),
                           "r");
    ASSERT_NE(out, nullptr);
    double accuracy = -1, consistency = -1;
    EXPECT_EQ(std::fscanf(out, "%lf %lf", &accuracy, &consistency), 2);
    ASSERT_EQ(pclose(out), 0);
    EXPECT_EQ(accuracy, c.accuracy);
    EXPECT_EQ(consistency, c.consistency);
  }
}

}  // namespace
}  // namespace semvq
