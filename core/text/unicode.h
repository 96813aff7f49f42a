// UTF-8 text, code point by code point, as Python's str methods see it.
#ifndef SEMVQ_CORE_TEXT_UNICODE_H_
#define SEMVQ_CORE_TEXT_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace semvq {

// The first code point of `text`. Returns its length in bytes, or 0 if it is
// malformed or `text` is empty.
size_t DecodeUtf8(absl::string_view text, int32_t* code);
void AppendUtf8(int32_t code, std::string* out);

// Whether Python's str.isspace() holds.
bool IsUnicodeSpace(int32_t code);
// Whether \d of Python's `re` matches: the category Nd.
bool IsUnicodeDigit(int32_t code);

// str.strip() and str.split(). Bytes that are not UTF-8 are no space.
absl::string_view StripUnicodeSpace(absl::string_view text);
std::vector<std::string> SplitUnicodeSpace(absl::string_view text);

// str.lower(), but for the Greek sigma at a word's end, which stays a medial
// one. Bytes that are not UTF-8 are kept.
std::string LowerUtf8(absl::string_view text);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_UNICODE_H_
