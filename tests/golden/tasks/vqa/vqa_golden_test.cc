// VQA accuracy against the Python re-derivation of the official evaluation:
// 1,200 random questions, exactly; and the task's result file, scored by it.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/vqa_official.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "tasks/vqa/vqa.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/tests/golden/tasks/vqa/",
                      name);
}

TEST(VqaGoldenTest, NormalisationAndAccuracyAreTheScripts) {
  auto file = ReadFile(Fixture("cases.jsonl"));
  ASSERT_TRUE(file.ok()) << file.status();
  dom::parser parser;
  int64_t cases = 0, partly = 0;
  for (absl::string_view line :
       absl::StrSplit(*file, '\n', absl::SkipEmpty())) {
    dom::element c;
    ASSERT_EQ(parser.parse(line.data(), line.size()).get(c), simdjson::SUCCESS);
    std::vector<std::string> said;
    for (const dom::element& x : c.at(2).get_array())
      said.emplace_back(std::string_view(x));
    const std::string predicted((std::string_view(c.at(3))));
    const std::string normalised((std::string_view(c.at(4))));
    EXPECT_EQ(NormalizeVqaAnswer(StripVqaAnswer(predicted)), normalised)
        << line;
    const double expected = double(c.at(5));
    EXPECT_NEAR(OfficialVqaAccuracy(predicted, said), expected, 1e-12) << line;
    partly += expected > 0 && expected < 1;
    ++cases;
  }
  EXPECT_GE(cases, 1000);
  EXPECT_GE(partly, 100);
}

std::string Output(const std::string& command) {
  std::string text;
  std::FILE* out = popen(command.c_str(), "r");
  if (out == nullptr) return text;
  char buffer[4096];
  while (std::fgets(buffer, sizeof(buffer), out) != nullptr) text += buffer;
  EXPECT_EQ(pclose(out), 0) << command;
  return text;
}

// The task answers the fixture's questions with their predictions; the file it
// writes is scored by Python from the official annotations file.
TEST(VqaGoldenTest, AnIndependentReaderScoresTheResultToTheSameNumbers) {
  auto file = ReadFile(Fixture("cases.jsonl"));
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string folder = testing::TempDir();
  constexpr int64_t kQuestions = 400, kBatch = 50;
  dom::parser parser;
  std::string annotations = "{\"annotations\": [", list = "[";
  std::map<std::string, int64_t> listed;
  std::map<std::string, int64_t> predicted;  // By question id.
  std::vector<Batch> batches;
  int64_t id = 0;
  for (absl::string_view line :
       absl::StrSplit(*file, '\n', absl::SkipEmpty())) {
    if (id == kQuestions) break;
    dom::element c;
    ASSERT_EQ(parser.parse(line.data(), line.size()).get(c), simdjson::SUCCESS);
    std::string said;
    for (const dom::element& x : c.at(2).get_array()) {
      absl::StrAppend(
          &said, said.empty() ? "" : ", ", "{\"answer_id\": ", said.size(),
          ", \"answer\": ", JsonString(std::string(std::string_view(x))), "}");
    }
    absl::StrAppend(&annotations, id > 0 ? ",\n" : "\n",
                    "{\"question_id\": ", id, ", \"question_type\": ",
                    JsonString(std::string(std::string_view(c.at(0)))),
                    ", \"answer_type\": ",
                    JsonString(std::string(std::string_view(c.at(1)))),
                    ", \"answers\": [", said, "]}");
    const std::string answer((std::string_view(c.at(3))));
    const auto next = static_cast<int64_t>(listed.size());
    if (listed.emplace(answer, next).second) {
      absl::StrAppend(&list, next > 0 ? ", " : "", JsonString(answer));
    }
    predicted[absl::StrCat(id)] = listed.at(answer);
    if (id % kBatch == 0) {
      TestBatchOptions options;
      options.images = 1;
      options.texts_per_image = kBatch;
      batches.push_back(TestBatch(options));
    }
    TextRecord& record = batches.back().texts[id % kBatch];
    record.id = absl::StrCat(id++);
    record.text = "what";
    record.answers.clear();
  }
  VqaConfig config;
  config.set_answer_list(JoinPath(folder, "list.json"));
  config.set_annotations(JoinPath(folder, "annotations.json"));
  ASSERT_TRUE(AtomicWriteFile(config.answer_list(), list + "]").ok());
  ASSERT_TRUE(AtomicWriteFile(config.annotations(), annotations + "]}").ok());

  FakeEvalContext context(batches);
  context.Provide("vqa", [&](const ViewKey&, Forward& forward) -> std::any {
    std::vector<int64_t> best;
    for (const TextRecord& text : forward.batch().texts)
      best.push_back(predicted.at(text.id));
    return at::one_hot(torch::tensor(best, at::kLong),
                       static_cast<int64_t>(listed.size()))
        .to(at::kFloat);
  });
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, 4}};
  book.Add("fusion", fusion);
  PluginContext plugin;
  plugin.instance = "vqa";
  plugin.book = &book;
  auto task = MakeVqa(config, plugin);
  ASSERT_TRUE(task.ok()) << task.status();
  const auto result = (*task)->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();

  const std::string scored =
      Output(absl::StrCat("python3 -B ", Fixture("score.py"), " ",
                          result->files[0], " ", config.annotations()));
  dom::object scores;
  ASSERT_EQ(parser.parse(scored).get(scores), simdjson::SUCCESS) << scored;
  int64_t compared = 0;
  for (const auto& [key, value] : scores) {
    const std::string name(key);
    const bool kind = name == "yes/no" || name == "number" || name == "other";
    const std::string metric =
        name == "overall" ? "accuracy"
        : kind            ? absl::StrCat("accuracy, ", name)
                          : absl::StrCat("accuracy, \"", name, "\" questions");
    EXPECT_NEAR(MetricOf(*result, metric).value, double(value), 1e-9) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 1 + 3 + 4);
  EXPECT_EQ(static_cast<int64_t>(result->metrics.size()), compared);
}

}  // namespace
}  // namespace semvq
