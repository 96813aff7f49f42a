// Token ids against those that the public tokenizers gave (generate.py).

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "core/util/json.h"

namespace semvq {
namespace {

using Ids = std::vector<std::vector<int64_t>>;

std::string Fixture(const std::string& name) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/tests/golden/fixtures/",
                      name);
}

std::vector<std::string> Strings(const std::string& name) {
  auto strings = ReadJsonStringList(Fixture(name));
  EXPECT_TRUE(strings.ok()) << strings.status();
  return strings.ok() ? *strings : std::vector<std::string>();
}

std::vector<std::string> Lines(const std::string& name) {
  auto text = ReadFile(Fixture(name));
  EXPECT_TRUE(text.ok()) << text.status();
  if (!text.ok()) return {};
  std::vector<std::string> lines = absl::StrSplit(*text, '\n');
  lines.pop_back();
  return lines;
}

Ids ExpectedIds(const std::string& name) {
  Ids all;
  for (const std::string& line : Lines(name)) {
    all.emplace_back();
    for (absl::string_view part :
         absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      int64_t id = -1;
      EXPECT_TRUE(absl::SimpleAtoi(part, &id)) << part;
      all.back().push_back(id);
    }
  }
  return all;
}

// Strings whose ids are not the expected ones; the first few are printed.
int Differences(const Tokenizer& tokenizer,
                const std::vector<std::string>& strings, const Ids& expected,
                bool print) {
  if (strings.size() != expected.size()) return -1;
  int count = 0;
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::vector<int64_t> got = tokenizer.Encode(strings[i]);
    if (got == expected[i]) continue;
    if (++count <= 5 && print) {
      ADD_FAILURE() << "string " << i << ", " << JsonString(strings[i])
                    << ": got " << testing::PrintToString(got) << ", expected "
                    << testing::PrintToString(expected[i]);
    }
  }
  return count;
}

TEST(TextGolden, WordPieceGivesTheIdsOfTokenizers) {
  auto tokenizer = LoadWordPiece(Fixture("text_vocab.txt"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto strings = Strings("text_strings.json");
  const Ids expected = ExpectedIds("text_wordpiece_ids.txt");
  ASSERT_GT(strings.size(), 300u);
  EXPECT_EQ(Differences(**tokenizer, strings, expected, /*print=*/true), 0);
  // Other rules would be noticed.
  WordPieceOptions options;
  options.uncased = false;
  tokenizer = LoadWordPiece(Fixture("text_vocab.txt"), options);
  EXPECT_GT(Differences(**tokenizer, strings, expected, /*print=*/false), 30);
  options = {};
  options.max_chars_per_word = 99;
  tokenizer = LoadWordPiece(Fixture("text_vocab.txt"), options);
  EXPECT_GT(Differences(**tokenizer, strings, expected, /*print=*/false), 0);
}

TEST(TextGolden, SentencePieceTrainsAndEncodesAsThePythonPackage) {
  const auto captions = Strings("text_captions.json");
  auto strings = Strings("text_strings.json");
  ASSERT_GT(captions.size(), 50u);
  strings.insert(strings.begin(), captions.begin(), captions.begin() + 50);
  for (const std::string& line : Lines("text_models.txt")) {
    const std::pair<std::string, std::string> model = absl::StrSplit(line, ' ');
    SentencePieceOptions options;
    options.vocab_size = 300;
    if (model.first == "bpe") {
      options.model = SentencePieceOptions::Model::kBpe;
    }
    const std::string path =
        JoinPath(testing::TempDir(), absl::StrCat(model.first, ".model"));
    const absl::Status trained = TrainSentencePiece(captions, options, path);
    ASSERT_TRUE(trained.ok()) << trained;
    EXPECT_EQ(*Sha256File(path), model.second) << model.first;
    auto tokenizer = LoadSentencePiece(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    Ids expected = ExpectedIds(absl::StrCat("text_", model.first, "_ids.txt"));
    EXPECT_EQ(Differences(**tokenizer, strings, expected, /*print=*/true), 0)
        << model.first;
    expected[3][0] ^= 1;
    EXPECT_EQ(Differences(**tokenizer, strings, expected, /*print=*/false), 1);
  }
}

}  // namespace
}  // namespace semvq
