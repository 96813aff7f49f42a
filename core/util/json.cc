#include "core/util/json.h"

#include <simdjson.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace semvq {

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(&out, "\\u%04x", c);
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

std::string JsonNumberOrString(absl::string_view text) {
  absl::string_view digits = text;
  if (!digits.empty() && digits[0] == '-') digits.remove_prefix(1);
  bool integer = !digits.empty() && digits.size() < 18 &&
                 (digits.size() == 1 || digits[0] != '0');
  for (char c : digits) integer = integer && absl::ascii_isdigit(c);
  return integer ? std::string(text) : JsonString(text);
}

absl::StatusOr<std::vector<std::string>> ReadJsonStringList(
    const std::string& path) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::error_code error = parser.load(path).get(root);
  if (error == simdjson::IO_ERROR) {
    return absl::NotFoundError(absl::StrCat(
        path, ": cannot be read; expected a JSON list of strings"));
  }
  simdjson::dom::array list;
  if (error != simdjson::SUCCESS || root.get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a JSON list of strings",
                     error == simdjson::SUCCESS
                         ? ", got another type"
                         : absl::StrCat(", ", simdjson::error_message(error))));
  }
  std::vector<std::string> strings;
  for (simdjson::dom::element item : list) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": item ", strings.size(), " of the list is not a string"));
    }
    strings.emplace_back(text);
  }
  return strings;
}

}  // namespace semvq
