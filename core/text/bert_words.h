// Text split into words as BERT splits it, before any vocabulary.
#ifndef SEMVQ_CORE_TEXT_BERT_WORDS_H_
#define SEMVQ_CORE_TEXT_BERT_WORDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace semvq {

struct BertWord {
  std::string text;
  std::vector<int32_t> starts;  // Of each character, in bytes.
};

// Calls `take` for each word, in order: cleaned, split at white space,
// punctuation and CJK characters, which are words themselves; `uncased`: in
// lower case, without accents. Bytes that are not UTF-8 are left out.
void ForEachBertWord(absl::string_view text, bool uncased,
                     absl::FunctionRef<void(const BertWord&)> take);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_BERT_WORDS_H_
