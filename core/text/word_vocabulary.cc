#include "core/text/word_vocabulary.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "core/text/bert_words.h"

namespace semvq {

std::vector<std::string> WordVocabulary(
    absl::Span<const std::vector<std::string>> texts_of_images,
    int64_t min_images) {
  absl::flat_hash_map<std::string, int64_t> images;
  for (const std::vector<std::string>& texts : texts_of_images) {
    absl::flat_hash_set<std::string> words;
    for (const std::string& text : texts) {
      ForEachBertWord(text, /*uncased=*/true,
                      [&](const BertWord& word) { words.insert(word.text); });
    }
    for (const std::string& word : words) ++images[word];
  }
  std::vector<std::pair<int64_t, std::string>> kept;
  for (const auto& [word, count] : images) {
    if (count >= min_images) kept.emplace_back(-count, word);
  }
  std::sort(kept.begin(), kept.end());
  std::vector<std::string> lines = {"[PAD]", "[UNK]", "[CLS]", "[SEP]",
                                    "[MASK]"};
  for (auto& [count, word] : kept) lines.push_back(std::move(word));
  return lines;
}

}  // namespace semvq
