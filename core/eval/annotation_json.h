// Reads official annotation files: one JSON object with lists of records.
#ifndef SEMVQ_CORE_EVAL_ANNOTATION_JSON_H_
#define SEMVQ_CORE_EVAL_ANNOTATION_JSON_H_

#include <simdjson.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// A JSON object with its place in the file, for messages.
class AnnotationRecord {
 public:
  AnnotationRecord(simdjson::dom::object object, std::string where)
      : object_(object), where_(std::move(where)) {}

  // The value of a key, or an error that names file, record and key.
  absl::StatusOr<std::string> String(absl::string_view key) const;
  // An integer, written in decimal, or a string that is not empty.
  absl::StatusOr<std::string> Id(absl::string_view key) const;
  absl::StatusOr<simdjson::dom::array> List(absl::string_view key,
                                            absl::string_view what) const;
  // `element`, which must be an object, as a record named `name` within this.
  absl::StatusOr<AnnotationRecord> Child(simdjson::dom::element element,
                                         absl::string_view name) const;
  // InvalidArgument: "<file>: <record>: <message>".
  absl::Status Error(absl::string_view message) const;

 private:
  absl::StatusOr<simdjson::dom::element> Get(absl::string_view key,
                                             absl::string_view expected) const;

  simdjson::dom::object object_;
  std::string where_;
};

struct AnnotationFormat {
  std::string list;  // Key of the list of records.
  std::string key;   // One that only records of this format have.
  std::string name;  // For messages: "COCO's captions file".
};

// Calls `visit` for the records of the list in order; stops at the first error.
// A file of another format is refused with the name of what it looks like.
absl::Status ForEachAnnotation(
    const std::string& path, const AnnotationFormat& format,
    const std::function<absl::Status(const AnnotationRecord&)>& visit);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_ANNOTATION_JSON_H_
