// A tokenizer for tests: every word is a token.
#ifndef SEMVQ_CORE_TEXT_TESTING_H_
#define SEMVQ_CORE_TEXT_TESTING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/text/tokenizer.h"
#include "core/text/unicode.h"

namespace semvq {

// [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then the given words.
class WordTokenizer : public Tokenizer {
 public:
  explicit WordTokenizer(std::vector<std::string> words)
      : Tokenizer(SpecialIds{0, 1, 2, 3, 4}), words_(std::move(words)) {}

  std::vector<int64_t> Encode(absl::string_view text) const override {
    std::vector<int64_t> ids;
    for (const std::string& word : SplitUnicodeSpace(text)) {
      int64_t id = 1;
      for (size_t i = 0; i < words_.size(); ++i) {
        if (words_[i] == word) id = static_cast<int64_t>(i) + 5;
      }
      ids.push_back(id);
    }
    return ids;
  }

  std::string Decode(absl::Span<const int64_t> ids) const override {
    std::string text;
    for (const int64_t id : ids) {
      if (id == 0 || (id >= 2 && id <= 4)) continue;
      if (!text.empty()) text += ' ';
      text += Piece(id);
    }
    return text;
  }

  std::string Piece(int64_t id) const override {
    return id >= 5 && id < vocab_size() ? words_[id - 5] : "[UNK]";
  }
  int64_t vocab_size() const override {
    return static_cast<int64_t>(words_.size()) + 5;
  }
  std::string fingerprint() const override { return "words"; }

 private:
  const std::vector<std::string> words_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_TESTING_H_
