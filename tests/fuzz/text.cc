// Captions and WordPiece: the text, and after a line "----" a vocabulary (else
// a small one).
#include "absl/strings/match.h"
#include "core/text/caption.h"
#include "core/text/tokenizer.h"
#include "core/text/unicode.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace semvq;  // NOLINT: no header.

constexpr absl::string_view kVocabulary =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\n##s\n##at\nc\nred\n.\n"
    "\xE7\x8C\xAB\n";

void Clean(absl::string_view text) {
  const bool valid = ValidateUtf8(text).ok();
  for (int64_t max_words : {0, 1, 5}) {
    const std::string cleaned = CleanCaption(text, max_words);
    FUZZ_CHECK(!valid || ValidateUtf8(cleaned).ok());
    FUZZ_CHECK(valid || max_words > 0 || !ValidateUtf8(cleaned).ok());
    FUZZ_CHECK(!absl::StartsWith(cleaned, " ") &&
               !absl::EndsWith(cleaned, " ") &&
               !absl::StrContains(cleaned, "  "));
    const auto words = static_cast<int64_t>(SplitUnicodeSpace(cleaned).size());
    FUZZ_CHECK(max_words == 0 || words <= max_words);
  }
}

void Encode(const Tokenizer& tokenizer, absl::string_view text) {
  for (const int64_t id : tokenizer.Encode(text)) {
    FUZZ_CHECK(id >= 0 && id < tokenizer.vocab_size());
    FUZZ_CHECK(id != tokenizer.pad_id() && id != tokenizer.cls_id() &&
               id != tokenizer.sep_id() && id != tokenizer.mask_id());
  }
  tokenizer.Decode(tokenizer.Encode(text));

  constexpr int64_t kLength = 6;
  const std::vector<std::string> texts = {std::string(text), ""};
  const auto padded = EncodePadded(tokenizer, texts, kLength);
  FUZZ_CHECK(padded.ok() == ValidateUtf8(text).ok());
  if (!padded.ok()) return;
  FUZZ_CHECK(padded->ids.size() == 2 * kLength);
  FUZZ_CHECK(padded->mask.size() == 2 * kLength);
  FUZZ_CHECK(padded->ids[0] == tokenizer.cls_id());
  for (int64_t i = 0; i < kLength; ++i) {
    const bool real = padded->mask[i] == 1;
    FUZZ_CHECK(real == (padded->ids[i] != tokenizer.pad_id()));
    FUZZ_CHECK(real || i + 1 == kLength || padded->mask[i + 1] == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<absl::string_view> parts =
      fuzz::Parts(fuzz::Bytes(data, size));
  Clean(parts[0]);
  const fuzz::MemoryFile vocabulary(parts.size() > 1 ? parts[1] : kVocabulary);
  for (bool uncased : {true, false}) {
    WordPieceOptions options;
    options.uncased = uncased;
    const auto tokenizer = LoadWordPiece(vocabulary.path(), options);
    if (!tokenizer.ok()) {
      FUZZ_CHECK(parts.size() > 1);
      continue;
    }
    Encode(**tokenizer, parts[0]);
  }
  return 0;
}
