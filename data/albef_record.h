// Records in the JSON format of ALBEF (Li et al. 2021); config.proto of
// data/sources/albef_json tells the format.
#ifndef SEMVQ_DATA_ALBEF_RECORD_H_
#define SEMVQ_DATA_ALBEF_RECORD_H_

#include <simdjson.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "data/sample_table.h"

namespace semvq {

// "a JSON list of records such as ...", for messages.
extern const char kAlbefFormat[];

// The record's texts ("caption", "question", "sentence" or "text"), with their
// ids and answers. An error names the key, what it got and what is expected;
// `texts` is then undefined.
absl::Status ReadAlbefTexts(simdjson::dom::object record,
                            std::vector<SampleTable::Text>* texts);

// One more text of a caption's record, after ReadAlbefTexts: the strings listed
// under `key`, joined by ", ", without those that are one of `texts` in any
// case of ASCII letters. None where the record has no such key or nothing is
// left. Errors as above.
absl::Status ReadAlbefKeywords(simdjson::dom::object record,
                               absl::string_view key,
                               std::vector<SampleTable::Text>* texts);

// "image" or "images".
absl::Status ReadAlbefImages(simdjson::dom::object record,
                             std::vector<std::string>* images);

// The value of `key` ("image_id"), a string or an integer; empty when there is
// none.
absl::Status ReadAlbefId(simdjson::dom::object record, absl::string_view key,
                         std::string* id);

}  // namespace semvq

#endif  // SEMVQ_DATA_ALBEF_RECORD_H_
