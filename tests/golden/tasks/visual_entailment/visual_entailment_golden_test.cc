// Visual entailment's accuracies and confusion counts against a script: 1,200
// cases, exactly.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/confusion.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tasks/visual_entailment/visual_entailment.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

const char* const kNames[] = {"contradiction", "neutral", "entailment"};

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/visual_entailment/", name);
}

// By first letter; -1: no agreed label.
int Label(char letter) {
  for (int i = 0; i < 3; ++i)
    if (kNames[i][0] == letter) return i;
  return -1;
}

struct Case {
  std::vector<std::pair<int, int>> examples;  // Label and prediction.
  double accuracy = 0;
  double by_label[3];  // NaN: it does not occur.
  int64_t counts[3][3];
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
    const std::string examples{std::string_view(value.at(0))};
    for (absl::string_view e : absl::StrSplit(examples, ' '))
      c.examples.emplace_back(Label(e[0]), Label(e[1]));
    c.accuracy = double{value.at(1)};
    for (int i = 0; i < 3; ++i) {
      dom::element share = value.at(2).at(i);
      c.by_label[i] = share.is_null() ? std::nan("") : double{share};
      for (int j = 0; j < 3; ++j)
        c.counts[i][j] = int64_t{value.at(3).at(i).at(j)};
    }
    cases.push_back(c);
  }
  EXPECT_GE(cases.size(), 1000u);
  return cases;
}

TEST(VisualEntailmentGolden, MeasuresEqualTheScripts) {
  for (const Case& c : Cases()) {
    ConfusionMatrix confusion(3);
    for (const auto& [label, predicted] : c.examples)
      if (label >= 0) confusion.Add(label, predicted);
    EXPECT_EQ(confusion.Accuracy(), c.accuracy);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(std::isnan(confusion.Recall(i)), std::isnan(c.by_label[i]));
      if (!std::isnan(c.by_label[i])) {
        EXPECT_EQ(confusion.Recall(i), c.by_label[i]);
      }
      for (int j = 0; j < 3; ++j)
        EXPECT_EQ(confusion.count(i, j), c.counts[i][j]);
    }
  }
}

// The task's numbers, and what score.py makes of the file it writes.
TEST(VisualEntailmentGolden, TheResultFileScoresToTheSameNumbers) {
  const std::vector<Case> cases = Cases();
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, 4}};
  book.Add("fusion", fusion);
  PluginContext plugin;
  plugin.instance = "ve";
  plugin.book = &book;
  auto task = MakeVisualEntailment(VisualEntailmentConfig(), plugin);
  ASSERT_TRUE(task.ok()) << task.status();
  FakeEvalContext context;
  for (size_t i = 0; i < cases.size(); i += 60) {
    const Case& c = cases[i];
    TestBatchOptions options;
    options.images = static_cast<int64_t>(c.examples.size());
    Batch batch = TestBatch(options);
    at::Tensor logits = at::zeros({options.images, 3});
    for (size_t j = 0; j < c.examples.size(); ++j) {
      const auto [label, predicted] = c.examples[j];
      batch.texts[j].id = absl::StrCat(j);
      batch.texts[j].text = "a sentence";
      batch.texts[j].answers = {{label < 0 ? "-" : kNames[label], 1.0f}};
      logits[j][predicted] = 1;
    }
    context.streams[""] = {batch};
    context.Provide(
        "ve", [&](const ViewKey&, Forward&) -> std::any { return logits; });
    const auto result = (*task)->Evaluate(context);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(MetricOf(*result, "accuracy").value, 100 * c.accuracy);

    std::FILE* out = popen(
        absl::StrCat("python3 ", Fixture("score.py"), " ", result->files[0])
            .c_str(),
        "r");
    ASSERT_NE(out, nullptr);
    std::string printed;
    char part[256];
    while (std::fgets(part, sizeof part, out) != nullptr) printed += part;
    ASSERT_EQ(pclose(out), 0);
    dom::parser parser;
    dom::element scored;
    ASSERT_EQ(parser.parse(printed).get(scored), simdjson::SUCCESS) << printed;
    EXPECT_EQ(double{scored.at(0)}, c.accuracy);
    dom::parser of_file;
    dom::element written;
    ASSERT_EQ(of_file.load(result->files[0]).get(written), simdjson::SUCCESS);
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) {
        EXPECT_EQ(int64_t{scored.at(1)[kNames[a]][kNames[b]]}, c.counts[a][b]);
        EXPECT_EQ(int64_t{written["confusion"].at(a).at(b)}, c.counts[a][b]);
      }
    }
  }
}

}  // namespace
}  // namespace semvq
