// Small JSON helpers; large annotation files are read by data/sources.
#ifndef SEMVQ_CORE_UTIL_JSON_H_
#define SEMVQ_CORE_UTIL_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// A quoted and escaped JSON string.
std::string JsonString(absl::string_view text);

// `text` as it is when it is a JSON integer, else quoted: ids that were numbers
// are written as numbers.
std::string JsonNumberOrString(absl::string_view text);

// A file that holds one JSON list of strings.
absl::StatusOr<std::vector<std::string>> ReadJsonStringList(
    const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_CORE_UTIL_JSON_H_
