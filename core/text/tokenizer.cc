#include "core/text/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/text/caption.h"

namespace semvq {

absl::StatusOr<PaddedTokens> EncodePadded(const Tokenizer& tokenizer,
                                          absl::Span<const std::string> texts,
                                          int64_t max_tokens) {
  if (max_tokens < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_tokens is ", max_tokens,
        ", expected at least 2: [CLS] and [SEP] take one place each"));
  }
  PaddedTokens out;
  out.batch = texts.size();
  out.length = max_tokens;
  out.ids.assign(out.batch * max_tokens, tokenizer.pad_id());
  out.mask.assign(out.batch * max_tokens, 0);
  for (int64_t row = 0; row < out.batch; ++row) {
    if (absl::Status s = ValidateUtf8(texts[row]); !s.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("text ", row, " of the batch: ", s.message()));
    }
    const std::vector<int64_t> tokens = tokenizer.Encode(texts[row]);
    const int64_t kept = std::min<int64_t>(tokens.size(), max_tokens - 2);
    if (kept < static_cast<int64_t>(tokens.size())) ++out.truncated;
    int64_t* ids = &out.ids[row * max_tokens];
    ids[0] = tokenizer.cls_id();
    std::copy_n(tokens.begin(), kept, ids + 1);
    ids[kept + 1] = tokenizer.sep_id();
    std::fill_n(&out.mask[row * max_tokens], kept + 2, 1);
  }
  return out;
}

}  // namespace semvq
