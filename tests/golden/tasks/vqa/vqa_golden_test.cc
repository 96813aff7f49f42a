// VQA accuracy against the Python re-derivation of the official evaluation:
// 1,200 random questions, exactly.
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/vqa_official.h"
#include "core/util/file.h"

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

}  // namespace
}  // namespace semvq
