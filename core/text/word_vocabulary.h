// A vocabulary of whole words, for sets too small to teach parts of words.
#ifndef SEMVQ_CORE_TEXT_WORD_VOCABULARY_H_
#define SEMVQ_CORE_TEXT_WORD_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace semvq {

// The lines of a file for LoadWordPiece: [PAD], [UNK], [CLS], [SEP], [MASK],
// and every word (see ForEachBertWord, uncased) that the texts of at least
// `min_images` images hold, the most frequent first, equals by their bytes.
// Without parts of words ("##"), each other word is one [UNK].
std::vector<std::string> WordVocabulary(
    absl::Span<const std::vector<std::string>> texts_of_images,
    int64_t min_images);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_WORD_VOCABULARY_H_
