#include "core/text/unicode.h"

#include <utf8proc.h>

#include "absl/strings/ascii.h"

namespace semvq {
namespace {

// Calls visit(code, first byte, length) for each code point; -1 for a byte that
// is no part of one.
template <class Visit>
void ForEachCode(absl::string_view text, const Visit& visit) {
  for (size_t at = 0; at < text.size();) {
    int32_t code = static_cast<unsigned char>(text[at]);
    size_t length = 1;
    if (code >= 0x80) {
      length = DecodeUtf8(text.substr(at), &code);
      if (length == 0) {
        code = -1;
        length = 1;
      }
    }
    visit(code, at, length);
    at += length;
  }
}

}  // namespace

size_t DecodeUtf8(absl::string_view text, int32_t* code) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const utf8proc_ssize_t used =
      utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size()), code);
  return used > 0 ? static_cast<size_t>(used) : 0;
}

void AppendUtf8(int32_t code, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(code, bytes);
  out->append(reinterpret_cast<const char*>(bytes), size);
}

bool IsUnicodeSpace(int32_t code) {
  if (code < 0) return false;
  if (code < 0x80)
    return absl::ascii_isspace(static_cast<unsigned char>(code)) ||
           (code >= 0x1c && code < 0x20);
  if (code == 0x85) return true;
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

bool IsUnicodeDigit(int32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  return utf8proc_category(code) == UTF8PROC_CATEGORY_ND;
}

absl::string_view StripUnicodeSpace(absl::string_view text) {
  size_t begin = text.size(), end = 0;
  ForEachCode(text, [&](int32_t code, size_t at, size_t length) {
    if (IsUnicodeSpace(code)) return;
    if (begin == text.size()) begin = at;
    end = at + length;
  });
  return end == 0 ? absl::string_view() : text.substr(begin, end - begin);
}

std::vector<std::string> SplitUnicodeSpace(absl::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  ForEachCode(text, [&](int32_t code, size_t at, size_t length) {
    if (IsUnicodeSpace(code)) {
      in_word = false;
      return;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    words.back().append(text.data() + at, length);
  });
  return words;
}

std::string LowerUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  ForEachCode(text, [&](int32_t code, size_t at, size_t length) {
    if (code < 0) {
      out.append(text.data() + at, length);
    } else if (code < 0x80) {
      out.push_back(absl::ascii_tolower(static_cast<unsigned char>(code)));
    } else if (code == 0x130) {  // I with a dot: the one that becomes two.
      out.append("i\xcc\x87");
    } else {
      AppendUtf8(utf8proc_tolower(code), &out);
    }
  });
  return out;
}

}  // namespace semvq
