// BLEU and CIDEr against pycocoevalcap: 1,100 random corpora, to 1e-9; tokens
// against Stanford's PTBTokenizer on captions of every kind that occurs.
#include <gtest/gtest.h>
#include <simdjson.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/eval/caption_metrics.h"
#include "core/util/file.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::vector<std::string> Lines(const std::string& name) {
  auto file = ReadFile(absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                                    std::getenv("TEST_WORKSPACE"),
                                    "/tests/golden/tasks/captioning/", name));
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? absl::StrSplit(*file, '\n', absl::SkipEmpty())
                   : std::vector<std::string>();
}

std::string Text(dom::element x) { return std::string(std::string_view(x)); }

TEST(CaptioningGoldenTest, BleuAndCiderArePycocoevalcaps) {
  dom::parser parser;
  int64_t cases = 0;
  for (const std::string& line : Lines("cases.jsonl")) {
    dom::element c;
    ASSERT_EQ(parser.parse(line).get(c), simdjson::SUCCESS);
    std::vector<CaptionCase> corpus;
    for (const dom::element& image : c.at(0).get_array()) {
      corpus.push_back({Text(image.at(0)), {}});
      for (const dom::element& reference : image.at(1).get_array())
        corpus.back().references.push_back(Text(reference));
    }
    const auto bleu = CorpusBleu(corpus);
    for (size_t n = 0; n < bleu.size(); ++n)
      EXPECT_NEAR(bleu[n], double(c.at(1).at(n)), 1e-9) << line;
    const CiderScores cider = Cider(corpus);
    EXPECT_NEAR(cider.mean, double(c.at(2)), 1e-9) << line;
    for (size_t i = 0; i < corpus.size(); ++i)
      EXPECT_NEAR(cider.each[i], double(c.at(3).at(i)), 1e-9) << line;
    ++cases;
  }
  EXPECT_GE(cases, 1000);
}

TEST(CaptioningGoldenTest, TokensAreThePtbTokenizers) {
  dom::parser parser;
  int64_t captions = 0;
  for (const std::string& line : Lines("tokens.jsonl")) {
    dom::element c;
    ASSERT_EQ(parser.parse(line).get(c), simdjson::SUCCESS);
    EXPECT_EQ(CaptionTokens(Text(c.at(0))), Text(c.at(1)));
    ++captions;
  }
  EXPECT_GE(captions, 40);
}

}  // namespace
}  // namespace semvq
