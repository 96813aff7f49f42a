// Texts of a sample in a shard: its .json as it is written and read.
#ifndef SEMVQ_DATA_SHARD_TEXTS_H_
#define SEMVQ_DATA_SHARD_TEXTS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "data/source.h"

namespace semvq {

// A text member longer than this is a bad sample.
constexpr int64_t kMaxShardTextBytes = int64_t{1} << 20;

// {"image_id": "7", "texts": [{"id": "1", "text": "a cat",
//   "answers": [["yes", 0.75]], "annotators": 4}]}
// Empty and default values are left out. Every bit of a sample's texts comes
// back from ReadShardTexts.
std::string ShardTextsJson(const std::string& image_id,
                           const std::vector<TextRecord>& texts);

// Reads that, or a record in ALBEF's format without images, into `sample`'s
// texts, and its image_id where there is one. InvalidArgument says what is
// wrong.
absl::Status ReadShardTexts(absl::string_view json, Sample* sample);

// Reads a .txt: one caption.
absl::Status ReadShardCaption(absl::string_view text, Sample* sample);

}  // namespace semvq

#endif  // SEMVQ_DATA_SHARD_TEXTS_H_
