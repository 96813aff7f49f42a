// Information, purity and predictability against a plain Python reading of
// their definitions, on 1,000 small corpora.
#include <gtest/gtest.h>
#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/information.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tasks/codebook_semantics/statistics.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"),
                      "/tests/golden/tasks/codebook_semantics/", name);
}

Bags ReadBags(dom::element images) {
  Bags bags;
  for (dom::element image : images.get_array()) {
    std::vector<int32_t> numbers;
    for (dom::element number : image.get_array()) {
      numbers.push_back(static_cast<int32_t>(int64_t(number)));
      bags.items = std::max<int64_t>(bags.items, numbers.back() + 1);
    }
    bags.Add(numbers);
  }
  return bags;
}

TEST(CodebookSemanticsGolden, EqualsTheDefinitions) {
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
    SCOPED_TRACE(number);
    const Bags codes = ReadBags(value["codes"]);
    const Bags words = ReadBags(value["words"]);
    std::vector<int64_t> order;
    for (dom::element i : value["order"].get_array()) {
      order.push_back(int64_t(i));
    }
    const at::Tensor joint = JointShares(codes, words, order);
    // Shares are float32.
    EXPECT_NEAR(NormalizedMutualInformation(joint),
                double(value["information"]), 1e-6);
    EXPECT_NEAR(Purity(joint), double(value["purity"]), 1e-6);
    const Prediction found =
        PredictWords(codes, words, order, int64_t(value["seed"]));
    EXPECT_EQ(found.images, int64_t(value["held_out"]));
    EXPECT_NEAR(found.bits, double(value["bits"]), 1e-3);
    EXPECT_DOUBLE_EQ(found.accuracy, double(value["known"]));
    if (HasFailure()) return;
  }
  EXPECT_GE(number, 1000);
}

}  // namespace
}  // namespace semvq
