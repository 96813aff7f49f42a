// Noto Color Emoji bitmaps with their English CLDR names.
#ifndef SEMVQ_TOOLS_DATA_EMOJI_H_
#define SEMVQ_TOOLS_DATA_EMOJI_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/common.h"

namespace semvq::tools {

struct EmojiOptions {
  // Empty: the usual places of the Debian packages fonts-noto-color-emoji and
  // unicode-cldr-core.
  std::string font;
  std::vector<std::string> annotations;  // read in order
  std::string labels;                    // CLDR's properties/labels.txt
};

struct EmojiStats {
  int64_t names = 0, found = 0;
  // Why the others are missing.
  int64_t no_glyph = 0;        // a code point the font does not know
  int64_t several = 0;         // the sequence does not become one glyph
  int64_t no_bitmap = 0;       // a glyph without a colour bitmap
  int64_t repeated_image = 0;  // found, but the same file as another name's
};

struct Annotation {
  std::u32string sequence;  // as CLDR writes it (without U+FE0F)
  std::string name;         // the type="tts" text
  std::vector<std::string> keywords;
};

// Fills the empty fields; NotFound names the missing Debian package.
absl::Status FindEmojiInputs(EmojiOptions* options);

// Names and keywords of one CLDR annotations file, in file order. Keywords
// without a name are left out. Errors name file and line.
absl::StatusOr<std::vector<Annotation>> ReadAnnotations(
    const std::string& path);

// The UTF-8 text as code points; InvalidArgument if it is not UTF-8.
absl::StatusOr<std::u32string> DecodeUtf8(const std::string& text);

// Writes images/emoji/<code points>.png (the font's own PNG files, 136x128
// with alpha, byte for byte) and appends the pairs. Sequences become one glyph
// by the font's ligatures (HarfBuzz), or are counted as missing.
absl::StatusOr<EmojiStats> ConvertEmoji(const EmojiOptions& options,
                                        OutputFolder* out,
                                        std::vector<Pair>* pairs);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_EMOJI_H_
