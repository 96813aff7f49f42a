// Reading annotation files record by record, whatever their size.
#ifndef SEMVQ_DATA_JSON_RECORDS_H_
#define SEMVQ_DATA_JSON_RECORDS_H_

#include <simdjson.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// "a list", "an object", "a string", "true or false", "null" or "a number".
absl::string_view JsonTypeName(simdjson::dom::element element);

// One record of a file.
struct JsonRecord {
  int list = 0;        // Which of JsonFileFormat::lists holds it.
  int64_t number = 0;  // From 0 within its list; from 1 for a line.
  // Not set when `error` is. Valid during the call that gets the record.
  simdjson::dom::element value;
  // Why this record alone cannot be used: bytes that are not UTF-8, or for a
  // line anything that is not JSON.
  absl::Status error;
};

// What a file must look like.
struct JsonFileFormat {
  enum Kind {
    kLists,  // An object that holds `lists`: {"images": [...], ...}.
    kList,   // One list, not empty: [{...}, ...].
    kLines,  // .jsonl: one record a line.
  };
  Kind kind = kLists;
  std::vector<std::string> lists;
  // For messages: "the official VQA v2 questions, {\"questions\": [...]}".
  std::string wanted;
  // For messages: "VqaV2Config.questions".
  std::string field;
};

using VisitRecord = std::function<absl::Status(const JsonRecord& record)>;

// A longer record is no record but a file that lost a quote or bracket.
constexpr size_t kMaxRecordBytes = size_t{1} << 24;

// Calls `visit` for each record, in the order of the file, and stops at its
// first error. Holds one record in memory at a time, of at most
// kMaxRecordBytes. NotFound when there is no file; InvalidArgument when it is
// cut off, no JSON, empty, or lacks a list: the message then says which known
// format the file looks like.
absl::Status ReadJsonRecords(const std::string& path,
                             const JsonFileFormat& format,
                             const VisitRecord& visit);

// The string at `key` of the top object; empty when it is not there or is no
// string. Reads no further than that. For "data_subtype" and the like.
absl::StatusOr<std::string> ReadTopLevelString(const std::string& path,
                                               absl::string_view key);

// Which known format `path` looks like, and the data source that reads it:
// "COCO captions (semvq.CocoCaptionsConfig)"; empty when it looks like none.
std::string GuessFormat(const std::string& path);

// An error for a file in which no record can be used: `first` is why the first
// one cannot. Names the format it looks like.
absl::Status NoUsableRecord(const std::string& path,
                            const JsonFileFormat& format, int64_t records,
                            const absl::Status& first);

// The value at `key` as text: a string, or an integer's digits. An error says
// "\"key\": got null, expected a string"; NotFound when the key is missing.
absl::StatusOr<std::string> JsonText(simdjson::dom::object record,
                                     absl::string_view key);

// JsonText that is not blank, for captions and questions.
absl::StatusOr<std::string> JsonWords(simdjson::dom::object record,
                                      absl::string_view key);

// The record as an object, or an error.
absl::StatusOr<simdjson::dom::object> JsonObject(const JsonRecord& record);

// For Validate: appends what is wrong with the names in `field` (empty, given
// twice), and with an image_root that is set but empty.
void CheckNames(absl::string_view field, const std::vector<std::string>& names,
                std::vector<std::string>* errors);
void CheckImageRoot(bool set, absl::string_view root,
                    std::vector<std::string>* errors);

// Whether `key` is there with a value other than null.
bool JsonHas(simdjson::dom::object record, absl::string_view key);

}  // namespace semvq

#endif  // SEMVQ_DATA_JSON_RECORDS_H_
