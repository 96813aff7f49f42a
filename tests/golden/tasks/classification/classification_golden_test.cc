// The classification task against counts in Python: 1,200 small cases with
// ties, exactly.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/forward/testing_eval.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tasks/classification/classification.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/classification/", name);
}

constexpr int kFirstClassId = 5;  // After the special tokens.

// A vocabulary with a word for every class: "c0", "c1", ...
std::unique_ptr<Tokenizer> MakeTokenizer() {
  std::string words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (int c = 0; c < 12; ++c) absl::StrAppend(&words, "c", c, "\n");
  const std::string path = JoinPath(testing::TempDir(), "classes.txt");
  EXPECT_TRUE(AtomicWriteFile(path, words).ok());
  auto tokenizer = LoadWordPiece(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

struct Case {
  explicit Case(dom::element value) : value(value) {
    std::vector<float> numbers;
    for (dom::element row : value["scores"].get_array()) {
      for (const char c : std::string_view(row))
        numbers.push_back(static_cast<float>(c - '0'));
    }
    for (dom::element label : value["labels"].get_array())
      labels.push_back(int64_t(label));
    scores =
        torch::tensor(numbers).view({static_cast<int64_t>(labels.size()), -1});
  }

  // Images of one pixel, their number.
  std::vector<Batch> Batches(int64_t batch_size) const {
    std::vector<Batch> batches;
    const auto images = static_cast<int64_t>(labels.size());
    for (int64_t first = 0; first < images; first += batch_size) {
      const int64_t n = std::min(batch_size, images - first);
      Batch batch;
      batch.images =
          at::arange(first, first + n, at::kFloat).view({n, 1, 1, 1, 1});
      batch.text_to_image = at::arange(n);
      batch.text_ids = at::zeros({n, 1}, at::kLong);
      batch.text_mask = at::ones({n, 1}, at::kBool);
      for (int64_t i = first; i < first + n; ++i) {
        batch.image_ids.push_back(absl::StrCat(i));
        batch.texts.emplace_back();
        batch.texts.back().answers = {{absl::StrCat("c", labels[i]), 1.0f}};
      }
      batches.push_back(std::move(batch));
    }
    return batches;
  }

  absl::StatusOr<TaskResult> Evaluate(const Tokenizer& tokenizer,
                                      int64_t batch_size) const {
    FakeEvalContext context(Batches(batch_size));
    context.Provide("itc", [&](const ViewKey& key, Forward& f) -> std::any {
      if (key.view == kImageEmbedding) {
        return scores.index_select(0, f.batch().images.flatten().to(at::kLong));
      }
      // One-hot by the prompt's word: the product is the score itself.
      return at::one_hot(f.batch().text_ids.select(1, 1) - kFirstClassId,
                         scores.size(1))
          .to(at::kFloat);
    });
    ClassificationConfig config;
    for (int64_t c = 0; c < scores.size(1); ++c)
      config.add_class_name(absl::StrCat("c", c));
    config.mutable_zero_shot();
    ContractBook book;
    book.max_tokens = 4;
    PluginContext plugin;
    plugin.instance = "golden";
    plugin.book = &book;
    plugin.tokenizer = &tokenizer;
    auto task = MakeClassification(config, plugin);
    if (!task.ok()) return task.status();
    return (*task)->Evaluate(context);
  }

  dom::element value;
  at::Tensor scores;
  std::vector<int64_t> labels;
};

void ForEachCase(const std::function<void(int64_t, const Case&)>& visit) {
  const auto file = ReadFile(Fixture("cases.jsonl"));
  ASSERT_TRUE(file.ok()) << file.status();
  dom::parser parser;
  int64_t number = -1;
  for (absl::string_view line :
       absl::StrSplit(*file, '\n', absl::SkipEmpty())) {
    dom::element value;
    ASSERT_EQ(parser.parse(line.data(), line.size()).get(value),
              simdjson::SUCCESS);
    if (number++ < 0) {
      const auto generator = ReadFile(Fixture("generate.py"));
      ASSERT_TRUE(generator.ok());
      EXPECT_EQ(Sha256Hex(*generator),
                std::string(std::string_view(value["generator"])))
          << "run generate.py again";
      continue;
    }
    visit(number, Case(value));
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GE(number, 1000);
}

TEST(ClassificationGolden, EqualsCounting) {
  const auto tokenizer = MakeTokenizer();
  ForEachCase([&](int64_t number, const Case& c) {
    const auto result = c.Evaluate(*tokenizer, 1 + number % 7);
    ASSERT_TRUE(result.ok()) << number << ": " << result.status();
    const auto equal = [&](const std::string& name, const char* key) {
      EXPECT_EQ(MetricOf(*result, name).value, double(c.value[key]))
          << "case " << number << " " << name;
    };
    equal("zero-shot top-1", "top-1");
    equal("zero-shot mean of the classes", "mean of the classes");
    equal("baseline: majority class", "majority");
    if (c.value["top-5"].is_null()) {
      EXPECT_THROW(MetricOf(*result, "zero-shot top-5"), std::out_of_range);
    } else {
      equal("zero-shot top-5", "top-5");
    }
  });
}

// score.py reads the result file and knows nothing else.
TEST(ClassificationGolden, TheResultFileScoresToTheSameNumbers) {
  const auto tokenizer = MakeTokenizer();
  ForEachCase([&](int64_t number, const Case& c) {
    if (number % 97 != 0) return;
    const auto result = c.Evaluate(*tokenizer, 4);
    ASSERT_TRUE(result.ok()) << result.status();
    const std::string command =
        absl::StrCat("python3 ", Fixture("score.py"), " ", result->files[0]);
    std::FILE* out = popen(command.c_str(), "r");
    ASSERT_NE(out, nullptr);
    std::map<std::string, double> scored;
    char line[256];
    while (std::fgets(line, sizeof line, out) != nullptr) {
      const std::string text(absl::StripAsciiWhitespace(line));
      const size_t space = text.rfind(' ');
      ASSERT_NE(space, std::string::npos) << text;
      ASSERT_TRUE(absl::SimpleAtod(text.substr(space + 1),
                                   &scored[text.substr(0, space)]));
    }
    ASSERT_EQ(pclose(out), 0) << "case " << number;
    // All but the baseline.
    EXPECT_EQ(scored.size() + 1, result->metrics.size());
    for (const auto& [name, value] : scored)
      EXPECT_EQ(MetricOf(*result, name).value, value) << name;
  });
}

}  // namespace
}  // namespace semvq
