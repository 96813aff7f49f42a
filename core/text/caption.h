#ifndef SEMVQ_CORE_TEXT_CAPTION_H_
#define SEMVQ_CORE_TEXT_CAPTION_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace semvq {

// OK, or InvalidArgument with the offset of the first byte that is not part of
// well-formed UTF-8 (overlong forms, surrogates and values past U+10FFFF are
// not). Text from outside passes through here before it is cleaned or encoded.
absl::Status ValidateUtf8(absl::string_view text);

// The caption clean-up of ALBEF (Li et al., 2021): lower case; ,.'!?"()*#:;~
// dropped; '-' and '/' to a space; "<person>" to "person"; white space to one
// space, none at the ends; the first `max_words` words (0: all). Questions go
// the same way. ALBEF leaves a single tab or line break inside a text, which
// then counts as part of a word.
// Bytes that are not UTF-8 become 0xff, so that ValidateUtf8 still finds them.
std::string CleanCaption(absl::string_view text, int64_t max_words = 30);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_CAPTION_H_
