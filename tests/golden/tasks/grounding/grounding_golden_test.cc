// The grounding task against a script that follows the protocol: 1,200 maps
// with their boxes, exactly.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/forward/testing_eval.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tasks/grounding/grounding.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/grounding/", name);
}

struct Case {
  at::Tensor map;         // float64 [h, w]
  std::string reference;  // Its record in the file of boxes.
  std::string chosen;     // The chosen box as JSON.
  double score = 0, iou = 0;
  bool hit = false, pointed = false;
  int64_t x = 0, y = 0;
};

class GroundingGolden : public testing::Test {
 protected:
  void SetUp() override {
    const auto file = ReadFile(Fixture("cases.jsonl"));
    ASSERT_TRUE(file.ok()) << file.status();
    dom::parser parser;
    for (absl::string_view line :
         absl::StrSplit(*file, '\n', absl::SkipEmpty())) {
      dom::element value;
      ASSERT_EQ(parser.parse(line.data(), line.size()).get(value),
                simdjson::SUCCESS);
      if (head_.empty()) {
        ReadHead(value);
      } else {
        AddCase(value);
      }
    }
    ASSERT_GE(cases_.size(), 1000u);
  }

  void ReadHead(dom::element value) {
    const auto generator = ReadFile(Fixture("generate.py"));
    ASSERT_TRUE(generator.ok());
    EXPECT_EQ(Sha256Hex(*generator),
              std::string(std::string_view(value["generator"])))
        << "run generate.py again";
    for (const char* name :
         {"hit@0.5", "pointing", "hit@0.5 chance", "pointing chance",
          "baseline: largest proposal", "baseline: centre point"})
      head_[name] = double(value[name]);
  }

  void AddCase(dom::element value) {
    Case c;
    std::vector<double> numbers;
    int64_t rows = 0;
    for (dom::element row : value["map"].get_array()) {
      ++rows;
      for (dom::element x : row.get_array()) numbers.push_back(double(x));
    }
    c.map = at::tensor(numbers, at::kDouble).view({rows, -1});
    std::vector<std::string> proposals;
    for (dom::element p : value["proposals"].get_array())
      proposals.push_back(simdjson::minify(p));
    const int64_t chosen = int64_t(value["chosen"]);
    c.chosen = chosen < 0 ? "null" : proposals.at(chosen);
    c.reference = absl::StrCat("{\"ref_id\": ", cases_.size(),
                               ", \"width\": ", int64_t(value["width"]),
                               ", \"height\": ", int64_t(value["height"]),
                               ", \"box\": ", simdjson::minify(value["box"]),
                               ", \"proposals\": [",
                               absl::StrJoin(proposals, ", "), "]}");
    c.score = double(value["score"]);
    c.iou = double(value["iou"]);
    c.hit = bool(value["hit"]);
    c.pointed = bool(value["pointed"]);
    c.x = int64_t(value["point"].at(0));
    c.y = int64_t(value["point"].at(1));
    cases_.push_back(c);
  }

  // A batch a case, whose attention is its map, once in each of two heads and
  // for one token of two, with a gradient of 1 (in a head: of -1, which must
  // not count): the map that results is a fourth of the case's.
  absl::StatusOr<TaskResult> Evaluate(FakeEvalContext& context) {
    std::vector<std::string> references;
    for (const Case& c : cases_) references.push_back(c.reference);
    boxes_ = JoinPath(context.folder, "boxes.json");
    absl::Status status = AtomicWriteFile(
        boxes_, absl::StrCat("[", absl::StrJoin(references, ",\n"), "]"));
    if (!status.ok()) return status;
    for (size_t i = 0; i < cases_.size(); ++i) {
      Batch batch;
      batch.images = at::zeros({1, 1, 3, 2, 2});
      batch.text_ids = at::zeros({1, 2}, at::kLong);
      batch.text_mask =
          at::tensor({1, 0}, at::kLong).view({1, 2}).to(at::kBool);
      batch.text_to_image = at::zeros({1}, at::kLong);
      batch.image_ids = {absl::StrCat(i)};
      batch.texts.resize(1);
      batch.texts[0].id = absl::StrCat(i);
      batch.texts[0].text = "a text";
      batch.sample_numbers = {static_cast<int64_t>(i)};
      context.streams[""].push_back(batch);
    }
    const auto map = [this](Forward& f) -> const at::Tensor& {
      return cases_.at(f.batch().sample_numbers[0]).map;
    };
    context.Provide("visual", [&](const ViewKey&, Forward& f) -> std::any {
      Tokens tokens;
      tokens.grid = {map(f).size(0), map(f).size(1)};
      tokens.has_cls = true;
      return tokens;
    });
    context.Provide(
        "text", [](const ViewKey&, Forward&) -> std::any { return Tokens(); });
    context.Provide("fusion", [&](const ViewKey& key, Forward& f) -> std::any {
      EXPECT_EQ(key.view, "cross_attention/2");
      const at::Tensor flat = map(f).reshape({1, 1, 1, -1});
      const at::Tensor cls = at::full({1, 1, 1, 1}, 1e7, at::kDouble);
      return std::vector<at::Tensor>{
          at::cat({cls, flat}, 3).repeat({1, 2, 2, 1}).requires_grad_(true)};
    });
    context.Provide("itm", [](const ViewKey&, Forward& f) -> std::any {
      const at::Tensor& attention = f.Get<std::vector<at::Tensor>>(
          FusedKey("fusion", CrossAttentionView(2)))[0];
      const at::Tensor match =
          attention.select(1, 0).sum() - attention.select(1, 1).sum();
      return at::stack({-7 * match, match}).unsqueeze(0);
    });
    GroundingConfig config;
    config.set_boxes(boxes_);
    PluginContext plugin;
    plugin.instance = "golden";
    auto task = MakeGrounding(config, plugin);
    if (!task.ok()) return task.status();
    return (*task)->Evaluate(context);
  }

  std::map<std::string, double> head_;
  std::vector<Case> cases_;
  std::string boxes_;
};

TEST_F(GroundingGolden, EqualsTheProtocol) {
  FakeEvalContext context;
  const auto result = Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  for (const char* name : {"hit@0.5", "pointing", "baseline: largest proposal",
                           "baseline: centre point"})
    EXPECT_EQ(MetricOf(*result, name).value, head_[name]) << name;
  for (const char* name : {"hit@0.5", "pointing"}) {
    EXPECT_EQ(MetricOf(*result, name).chance,
              head_[absl::StrCat(name, " chance")])
        << name;
  }

  ASSERT_EQ(result->files.size(), 1u);
  const auto text = ReadFile(result->files[0]);
  ASSERT_TRUE(text.ok());
  dom::parser parser;
  dom::element rows;
  ASSERT_EQ(parser.parse(*text).get(rows), simdjson::SUCCESS);
  size_t i = 0;
  for (dom::element row : rows.get_array()) {
    SCOPED_TRACE(absl::StrCat("case ", i));
    const Case& c = cases_.at(i);
    EXPECT_EQ(int64_t(row["ref_id"]), static_cast<int64_t>(i));
    dom::parser other;
    const std::string got = simdjson::minify(row["box"]);
    if (c.chosen == "null") {
      EXPECT_EQ(got, c.chosen);
    } else {
      dom::element want;
      ASSERT_EQ(other.parse(c.chosen).get(want), simdjson::SUCCESS);
      for (size_t k = 0; k < 4; ++k)
        EXPECT_EQ(double(row["box"].at(k)), double(want.at(k)));
    }
    EXPECT_EQ(double(row["iou"]), c.iou);
    EXPECT_NEAR(double(row["score"]), c.score / 4, 1e-9 * (1 + c.score));
    EXPECT_EQ(int64_t(row["point"].at(0)), c.x);
    EXPECT_EQ(int64_t(row["point"].at(1)), c.y);
    ++i;
  }
  EXPECT_EQ(i, cases_.size());
}

// score.py reads the result file and the boxes, and knows nothing else.
TEST_F(GroundingGolden, TheResultFileScoresToTheSameNumbers) {
  FakeEvalContext context;
  const auto result = Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  const std::string command = absl::StrCat("python3 ", Fixture("score.py"), " ",
                                           result->files[0], " ", boxes_);
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
  ASSERT_EQ(pclose(out), 0);
  EXPECT_EQ(scored.size(), 2u);
  for (const auto& [name, value] : scored)
    EXPECT_EQ(MetricOf(*result, name).value, value) << name;
}

}  // namespace
}  // namespace semvq
