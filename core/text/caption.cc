#include "core/text/caption.h"

#include <utf8proc.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/text/unicode.h"

namespace semvq {
namespace {

constexpr absl::string_view kDropped = ",.'!?\"()*#:;~";
constexpr absl::string_view kPerson = "<person>";
constexpr char kNoUtf8 = '\xff';  // Part of no character.

// Collects words, with one space between them, up to a limit.
class WordSink {
 public:
  WordSink(int64_t max_words, size_t size_hint) : max_words_(max_words) {
    out_.reserve(size_hint);
  }

  // False once another word would be one too many.
  bool Space() {
    in_word_ = false;
    return max_words_ <= 0 || words_ < max_words_;
  }

  std::string* Word() {
    if (!in_word_) {
      if (words_++ > 0) out_.push_back(' ');
      in_word_ = true;
    }
    return &out_;
  }

  std::string Finish() { return std::move(out_); }

 private:
  const int64_t max_words_;
  int64_t words_ = 0;
  bool in_word_ = false;
  std::string out_;
};

}  // namespace

absl::Status ValidateUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    int32_t code = 0;
    const size_t used = DecodeUtf8(text.substr(at), &code);
    if (used == 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "text is not UTF-8: byte 0x%02x at offset %d of %d; save it as UTF-8",
          static_cast<unsigned char>(text[at]), at, text.size()));
    }
    at += used;
  }
  return absl::OkStatus();
}

std::string CleanCaption(absl::string_view text, int64_t max_words) {
  WordSink sink(max_words, max_words > 0 ? 256 : text.size());
  while (!text.empty()) {
    const unsigned char c = text.front();
    if (c < 0x80) {
      if (c == '-' || c == '/' || IsUnicodeSpace(c)) {
        if (!sink.Space()) break;
      } else if (c == '<' && absl::StartsWithIgnoreCase(text, kPerson)) {
        sink.Word()->append("person");
        text.remove_prefix(kPerson.size());
        continue;
      } else if (!absl::StrContains(kDropped, c)) {
        sink.Word()->push_back(absl::ascii_tolower(c));
      }
      text.remove_prefix(1);
      continue;
    }
    int32_t code = 0;
    const size_t used = DecodeUtf8(text, &code);
    if (used == 0) {
      // Kept as they are, such bytes could form a character once what stands
      // between them is dropped.
      sink.Word()->push_back(kNoUtf8);
      text.remove_prefix(1);
      continue;
    }
    if (IsUnicodeSpace(code)) {
      if (!sink.Space()) break;
    } else {
      AppendUtf8(utf8proc_tolower(code), sink.Word());
    }
    text.remove_prefix(used);
  }
  return sink.Finish();
}

}  // namespace semvq
