#include "core/text/bert_words.h"

#include <utf8proc.h>

#include "absl/strings/ascii.h"

namespace semvq {
namespace {

enum class CharClass { kLetter, kSpace, kSplit, kDropped };

bool IsCjkIdeograph(utf8proc_int32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B820 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// BERT's classes: every ASCII symbol counts as punctuation; control, format and
// private characters vanish. Unassigned ones stay, so that a character newer
// than the Unicode tables at hand becomes unk and is not lost unseen.
CharClass Classify(utf8proc_int32_t c) {
  if (c < 0x80) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      return CharClass::kSpace;
    }
    if (c < 0x20 || c == 0x7f) return CharClass::kDropped;
    return absl::ascii_ispunct(c) ? CharClass::kSplit : CharClass::kLetter;
  }
  if (c == 0xFFFD) return CharClass::kDropped;
  if (IsCjkIdeograph(c)) return CharClass::kSplit;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      return CharClass::kDropped;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return CharClass::kSplit;
    default:
      return CharClass::kLetter;
  }
}

void Append(utf8proc_int32_t c, BertWord* word) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(c, bytes);
  word->starts.push_back(static_cast<int32_t>(word->text.size()));
  word->text.append(reinterpret_cast<const char*>(bytes), size);
}

// Calls add(code point) for the lower-case, accent-free form of c.
template <typename Add>
void Fold(utf8proc_int32_t c, bool uncased, const Add& add) {
  if (c < 0x80) {
    add(uncased ? absl::ascii_tolower(c) : c);
    return;
  }
  if (!uncased) {
    add(c);
    return;
  }
  utf8proc_int32_t parts[32];
  int boundary = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      utf8proc_tolower(c), parts, 32, UTF8PROC_DECOMPOSE, &boundary);
  for (utf8proc_ssize_t i = 0; i < count && i < 32; ++i) {
    if (utf8proc_category(parts[i]) != UTF8PROC_CATEGORY_MN) add(parts[i]);
  }
}

}  // namespace

void ForEachBertWord(absl::string_view text, bool uncased,
                     absl::FunctionRef<void(const BertWord&)> take) {
  BertWord word;
  const auto flush = [&] {
    if (!word.text.empty()) take(word);
    word.text.clear();
    word.starts.clear();
  };
  // What is left after lower-casing and decomposition: a letter, a symbol that
  // is a word of its own, or nothing.
  const auto add = [&](utf8proc_int32_t c) {
    if (Classify(c) == CharClass::kSplit) {
      flush();
      Append(c, &word);
      flush();
    } else {
      Append(c, &word);
    }
  };
  while (!text.empty()) {
    utf8proc_int32_t c = 0;
    const utf8proc_ssize_t used =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                         text.size(), &c);
    if (used <= 0) {
      text.remove_prefix(1);
      continue;
    }
    text.remove_prefix(used);
    switch (Classify(c)) {
      case CharClass::kDropped:
        break;
      case CharClass::kSpace:
        flush();
        break;
      case CharClass::kSplit:
      case CharClass::kLetter:
        // An ideograph stands alone even where it decomposes.
        if (IsCjkIdeograph(c)) flush();
        Fold(c, uncased, add);
        if (IsCjkIdeograph(c)) flush();
        break;
    }
  }
  flush();
}

}  // namespace semvq
