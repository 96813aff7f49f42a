// The retrieval task against a brute-force ranking in Python: 1,200 small cases
// with ties, several captions an image and shared ids, exactly.
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
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tasks/retrieval/retrieval.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/retrieval/", name);
}

template <class T>
std::vector<T> List(dom::element value) {
  std::vector<T> out;
  for (dom::element x : value.get_array()) out.push_back(T(x));
  return out;
}

// Rows of digits as float [I, T].
at::Tensor Digits(dom::element value, int64_t columns) {
  std::vector<float> numbers;
  int64_t rows = 0;
  for (dom::element row : value.get_array()) {
    for (const char c : std::string_view(row)) {
      numbers.push_back(static_cast<float>(c - '0'));
    }
    ++rows;
  }
  return torch::tensor(numbers).view({rows, columns});
}

struct Case {
  std::vector<int64_t> ids, owner;
  at::Tensor similarity, matching;
  int64_t k = 0;
  std::vector<double> metrics, reranked;

  explicit Case(dom::element value)
      : ids(List<int64_t>(value["ids"])), owner(List<int64_t>(value["owner"])) {
    const auto texts = static_cast<int64_t>(owner.size());
    similarity = Digits(value["similarity"], texts);
    matching = Digits(value["matching"], texts);
    k = int64_t(value["k"]);
    metrics = List<double>(value["metrics"]);
    reranked = List<double>(value["reranked"]);
  }

  std::vector<Batch> Batches(int64_t batch_size) const {
    std::vector<Batch> batches;
    const auto images = static_cast<int64_t>(ids.size());
    for (int64_t first = 0; first < images; first += batch_size) {
      const int64_t n = std::min(batch_size, images - first);
      Batch batch;
      // An image's pixels and a text's token are its number.
      batch.images = at::arange(first, first + n, at::kFloat)
                         .view({n, 1, 1, 1, 1})
                         .expand({n, 1, 3, 1, 1});
      std::vector<int64_t> numbers, rows;
      for (size_t t = 0; t < owner.size(); ++t) {
        if (owner[t] < first || owner[t] >= first + n) continue;
        numbers.push_back(static_cast<int64_t>(t));
        rows.push_back(owner[t] - first);
        batch.texts.emplace_back();
        batch.texts.back().text = absl::StrCat("caption \"", t, "\"");
      }
      batch.text_ids = torch::tensor(numbers, at::kLong).view({-1, 1});
      batch.text_mask = at::ones(batch.text_ids.sizes(), at::kBool);
      batch.text_to_image = torch::tensor(rows, at::kLong);
      for (int64_t i = first; i < first + n; ++i) {
        batch.image_ids.push_back(absl::StrCat(ids[i]));
        batch.sample_numbers.push_back(i);
      }
      batches.push_back(std::move(batch));
    }
    return batches;
  }

  absl::StatusOr<TaskResult> Evaluate(const RetrievalConfig& config,
                                      int64_t batch_size) const {
    FakeEvalContext context(Batches(batch_size));
    const auto number = [](const at::Tensor& t) {
      return t.flatten(1).select(1, 0).to(at::kLong);
    };
    context.Provide("itc", [&](const ViewKey& key, Forward& f) -> std::any {
      // One-hot images: the product is the similarity itself.
      if (key.view == kImageEmbedding) {
        return at::eye(similarity.size(0))
            .index_select(0, number(f.batch().images));
      }
      return similarity.t().index_select(0, number(f.batch().text_ids));
    });
    const auto tokens = [](const at::Tensor& numbers) {
      Tokens out;
      out.values = numbers.to(at::kFloat).view({-1, 1, 1});
      return out;
    };
    context.Provide("visual", [&](const ViewKey&, Forward& f) -> std::any {
      return tokens(number(f.batch().images));
    });
    context.Provide("text", [&](const ViewKey&, Forward& f) -> std::any {
      return tokens(number(f.batch().text_ids));
    });
    context.Provide("itm", [&](const ViewKey&, Forward& f) -> std::any {
      const at::Tensor image =
          number(f.Get<Tokens>(ImageKey("visual", kTokens)).values)
              .index_select(0, f.batch().text_to_image);
      const at::Tensor text =
          number(f.Get<Tokens>(TextKey("text", kTokens)).values);
      const at::Tensor match = matching.index({image, text});
      return at::stack({-match, match}, 1);
    });
    PluginContext plugin;
    plugin.instance = "golden";
    auto task = MakeRetrieval(config, plugin);
    if (!task.ok()) return task.status();
    return (*task)->Evaluate(context);
  }
};

const std::vector<std::string>& Names() {
  static const auto* names = new std::vector<std::string>{
      "TR R@1", "TR R@5",  "TR R@10",        "TR median rank", "IR R@1",
      "IR R@5", "IR R@10", "IR median rank", "r_mean"};
  return *names;
}

// Calls `visit` for every case, in a parser's buffer of its own.
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

TEST(RetrievalGolden, EqualsBruteForce) {
  ForEachCase([](int64_t number, const Case& c) {
    RetrievalConfig config;
    config.set_rerank_top_k(c.k);
    config.set_rerank_batch_size(1 + number % 40);
    config.set_text_cache_mib(number % 2);  // 0: texts are encoded again.
    config.set_result_top_k(0);
    const auto result = c.Evaluate(config, 1 + number % 7);
    ASSERT_TRUE(result.ok()) << number << ": " << result.status();
    for (size_t m = 0; m < Names().size(); ++m) {
      EXPECT_EQ(MetricOf(*result, Names()[m]).value, c.metrics[m])
          << "case " << number << " " << Names()[m];
      EXPECT_EQ(MetricOf(*result, "reranked " + Names()[m]).value,
                c.reranked[m])
          << "case " << number << " reranked " << Names()[m];
    }
  });
}

// score.py reads the result file and knows nothing else.
TEST(RetrievalGolden, TheResultFileScoresToTheSameNumbers) {
  ForEachCase([](int64_t number, const Case& c) {
    if (number % 97 != 0) return;
    RetrievalConfig config;
    config.set_rerank_top_k(number % 2 == 0 ? c.k : 0);
    const auto result = c.Evaluate(config, 4);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->files.size(), 1u);
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
    EXPECT_EQ(scored.size(), result->metrics.size());
    for (const TaskMetric& metric : result->metrics) {
      EXPECT_EQ(scored[metric.name], metric.value)
          << "case " << number << " " << metric.name;
    }
  });
}

}  // namespace
}  // namespace semvq
