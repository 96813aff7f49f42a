#include "data/json_records.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "data/json_scanner.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

absl::Status CutOff(const std::string& path, const ByteReader& bytes,
                    absl::string_view wanted) {
  if (bytes.error() != 0) {
    return absl::DataLossError(absl::StrCat(path, ": reading stopped at byte ",
                                            bytes.offset(), ": ",
                                            std::strerror(bytes.error())));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": not valid JSON or cut off at byte ", bytes.offset(),
                   "; expected ", wanted, "; is the download complete?"));
}

std::string Looks(const std::string& path) {
  const std::string guess = GuessFormat(path);
  return guess.empty() ? "" : absl::StrCat("; it looks like ", guess);
}

absl::Status NotThisFormat(const std::string& path, absl::string_view got,
                           const JsonFileFormat& format) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": got ", got, ", expected ", format.wanted, Looks(path)));
}

absl::Status TooLong(const std::string& path, absl::string_view unit,
                     int64_t number, int64_t begin) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", unit, " ", number, ", which begins at byte ",
                   begin, ", is longer than ", kMaxRecordBytes,
                   " bytes; is a quote or bracket missing?"));
}

const absl::Status& NotUtf8() {
  static const absl::Status* status =
      new absl::Status(absl::StatusCode::kInvalidArgument,
                       "got bytes that are not UTF-8, expected UTF-8 text; "
                       "convert the file");
  return *status;
}

// The elements of a list whose '[' comes next.
absl::Status ReadList(const std::string& path, const JsonFileFormat& format,
                      int list, ByteReader* bytes, RecordParser* parser,
                      const VisitRecord& visit) {
  Scanner scanner(bytes);
  bytes->Get();
  JsonRecord record;
  record.list = list;
  if (bytes->PeekAfterSpace() == ']') {
    bytes->Get();
    return absl::OkStatus();
  }
  for (;; ++record.number) {
    parser->text.clear();
    const int64_t begin = bytes->offset();
    if (!scanner.Value(&parser->text)) {
      return parser->text.size() < kMaxRecordBytes
                 ? CutOff(path, *bytes, format.wanted)
                 : TooLong(path, "record", record.number, begin);
    }
    const simdjson::error_code error = parser->Parse(&record.value);
    record.error = absl::OkStatus();
    if (error == simdjson::UTF8_ERROR) {
      record.error = NotUtf8();
    } else if (error != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": not valid JSON (", simdjson::error_message(error),
          ") in record ", record.number, ", which ends at byte ",
          bytes->offset(), "; expected ", format.wanted));
    }
    const absl::Status status = visit(record);
    if (!status.ok()) return status;
    const int next = bytes->PeekAfterSpace();
    if (next != ',' && next != ']') return CutOff(path, *bytes, format.wanted);
    bytes->Get();
    if (next == ']') return absl::OkStatus();
  }
}

absl::Status ReadLists(const std::string& path, const JsonFileFormat& format,
                       ByteReader* bytes, const VisitRecord& visit) {
  const int first = bytes->PeekAfterSpace();
  if (first == kEnd && bytes->error() == 0) {
    return NotThisFormat(path, "an empty file", format);
  }
  if (first != '{') {
    return NotThisFormat(path, first == '[' ? "a list" : "no JSON object",
                         format);
  }
  Scanner scanner(bytes);
  RecordParser parser;
  std::vector<bool> seen(format.lists.size(), false);
  bytes->Get();
  int next = bytes->PeekAfterSpace();
  if (next == '}') bytes->Get();
  while (next != '}') {
    parser.text.clear();
    dom::element key;
    std::string_view name;
    if (bytes->PeekAfterSpace() != '"' || !scanner.Value(&parser.text) ||
        parser.Parse(&key) != simdjson::SUCCESS ||
        key.get(name) != simdjson::SUCCESS || bytes->PeekAfterSpace() != ':') {
      return CutOff(path, *bytes, format.wanted);
    }
    bytes->Get();
    const auto list =
        std::find(format.lists.begin(), format.lists.end(), name) -
        format.lists.begin();
    const int value = bytes->PeekAfterSpace();
    if (list == static_cast<ptrdiff_t>(format.lists.size())) {
      if (!scanner.Value(nullptr)) return CutOff(path, *bytes, format.wanted);
    } else if (value != '[') {
      return NotThisFormat(
          path, absl::StrCat("no list at \"", format.lists[list], "\""),
          format);
    } else {
      seen[list] = true;
      const absl::Status status =
          ReadList(path, format, static_cast<int>(list), bytes, &parser, visit);
      if (!status.ok()) return status;
    }
    next = bytes->PeekAfterSpace();
    if (next != ',' && next != '}') return CutOff(path, *bytes, format.wanted);
    bytes->Get();
  }
  if (bytes->PeekAfterSpace() != kEnd || bytes->error() != 0) {
    return bytes->error() == 0
               ? NotThisFormat(path, "more than one JSON value", format)
               : CutOff(path, *bytes, format.wanted);
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i]) {
      return NotThisFormat(
          path, absl::StrCat("no list \"", format.lists[i], "\""), format);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadOneList(const std::string& path, const JsonFileFormat& format,
                         ByteReader* bytes, const VisitRecord& visit) {
  const int first = bytes->PeekAfterSpace();
  if (first == kEnd && bytes->error() == 0) {
    return NotThisFormat(path, "an empty file", format);
  }
  if (first != '[') {
    return NotThisFormat(path, first == '{' ? "an object" : "no JSON list",
                         format);
  }
  RecordParser parser;
  bool any = false;
  const absl::Status status =
      ReadList(path, format, 0, bytes, &parser, [&](const JsonRecord& record) {
        any = true;
        return visit(record);
      });
  if (!status.ok()) return status;
  if (bytes->PeekAfterSpace() != kEnd || bytes->error() != 0) {
    return bytes->error() == 0
               ? NotThisFormat(path, "more than one JSON value", format)
               : CutOff(path, *bytes, format.wanted);
  }
  return any ? absl::OkStatus() : NotThisFormat(path, "an empty list", format);
}

absl::Status ReadLines(const std::string& path, const JsonFileFormat& format,
                       ByteReader* bytes, const VisitRecord& visit) {
  RecordParser parser;
  int64_t records = 0;
  JsonRecord record;
  for (bool more = true; more;) {
    parser.text.clear();
    int byte;
    const int64_t begin = bytes->offset();
    while ((byte = bytes->Get()) != kEnd && byte != '\n') {
      if (parser.text.size() == kMaxRecordBytes)
        return TooLong(path, "line", record.number + 1, begin);
      parser.text.push_back(static_cast<char>(byte));
    }
    more = byte != kEnd;
    ++record.number;
    if (absl::StripAsciiWhitespace(parser.text).empty()) continue;
    const simdjson::error_code error = parser.Parse(&record.value);
    record.error = absl::OkStatus();
    if (error == simdjson::UTF8_ERROR) {
      record.error = NotUtf8();
    } else if (error != simdjson::SUCCESS) {
      // A last line without its end is a file that was cut off, and a first
      // one that is no JSON is another format; neither is one bad record.
      if (!more) return CutOff(path, *bytes, format.wanted);
      if (records == 0) {
        return NotThisFormat(path, "a first line that is no JSON", format);
      }
      record.error = absl::InvalidArgumentError(absl::StrCat(
          "not valid JSON (", simdjson::error_message(error), ")"));
    } else if (records == 0 && !record.value.is_object()) {
      return NotThisFormat(
          path, absl::StrCat(JsonTypeName(record.value), " in the first line"),
          format);
    }
    ++records;
    const absl::Status status = visit(record);
    if (!status.ok()) return status;
  }
  if (bytes->error() != 0) return CutOff(path, *bytes, format.wanted);
  if (records == 0) return NotThisFormat(path, "an empty file", format);
  return absl::OkStatus();
}

}  // namespace

absl::string_view JsonTypeName(dom::element element) {
  switch (element.type()) {
    case dom::element_type::ARRAY:
      return "a list";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "true or false";
    case dom::element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

absl::Status ReadJsonRecords(const std::string& path,
                             const JsonFileFormat& format,
                             const VisitRecord& visit) {
  ByteReader bytes;
  const absl::Status opened = bytes.Open(path);
  if (!opened.ok()) {
    return absl::Status(opened.code(),
                        absl::StrCat(opened.message(), ". Wanted there: ",
                                     format.wanted, " (", format.field, ")"));
  }
  switch (format.kind) {
    case JsonFileFormat::kLines:
      return ReadLines(path, format, &bytes, visit);
    case JsonFileFormat::kList:
      return ReadOneList(path, format, &bytes, visit);
    default:
      return ReadLists(path, format, &bytes, visit);
  }
}

absl::StatusOr<std::string> ReadTopLevelString(const std::string& path,
                                               absl::string_view key) {
  ByteReader bytes;
  const absl::Status opened = bytes.Open(path);
  if (!opened.ok()) return opened;
  Scanner scanner(&bytes);
  RecordParser parser;
  dom::element value;
  std::string_view text;
  if (bytes.PeekAfterSpace() != '{') return std::string();
  int next = ',';
  while (next == ',') {
    bytes.Get();  // '{' or ','
    parser.text.clear();
    if (bytes.PeekAfterSpace() != '"' || !scanner.Value(&parser.text) ||
        parser.Parse(&value) != simdjson::SUCCESS ||
        value.get(text) != simdjson::SUCCESS || bytes.PeekAfterSpace() != ':') {
      break;
    }
    bytes.Get();
    if (text == std::string_view(key.data(), key.size())) {
      parser.text.clear();
      if (!scanner.Value(&parser.text) ||
          parser.Parse(&value) != simdjson::SUCCESS ||
          value.get(text) != simdjson::SUCCESS) {
        break;
      }
      return std::string(text);
    }
    if (!scanner.Value(nullptr)) break;
    next = bytes.PeekAfterSpace();
  }
  return std::string();
}

absl::Status NoUsableRecord(const std::string& path,
                            const JsonFileFormat& format, int64_t records,
                            const absl::Status& first) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": none of its ", records, " records can be used; the first: ",
      first.message(), "; expected ", format.wanted, Looks(path)));
}

absl::StatusOr<std::string> JsonText(dom::object record,
                                     absl::string_view key) {
  dom::element value;
  if (record.at_key(std::string_view(key.data(), key.size())).get(value) !=
      simdjson::SUCCESS) {
    return absl::NotFoundError(
        absl::StrCat("the key \"", key, "\" is missing"));
  }
  if (value.is_int64()) return absl::StrCat(int64_t{value.get_int64()});
  if (value.is_uint64()) return absl::StrCat(uint64_t{value.get_uint64()});
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got ", JsonTypeName(value),
                     ", expected a string or an integer"));
  }
  return std::string(text);
}

absl::StatusOr<std::string> JsonWords(dom::object record,
                                      absl::string_view key) {
  absl::StatusOr<std::string> text = JsonText(record, key);
  if (text.ok() && absl::StripAsciiWhitespace(*text).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got an empty text, expected words"));
  }
  return text;
}

absl::StatusOr<dom::object> JsonObject(const JsonRecord& record) {
  if (!record.error.ok()) return record.error;
  dom::object object;
  if (record.value.get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got ", JsonTypeName(record.value), ", expected an object {...}"));
  }
  return object;
}

void CheckNames(absl::string_view field, const std::vector<std::string>& names,
                std::vector<std::string>* errors) {
  for (auto it = names.begin(); it != names.end(); ++it) {
    if (it->empty()) {
      errors->push_back(absl::StrCat(field, ": got an empty name"));
    } else if (std::find(names.begin(), it, *it) != it) {
      errors->push_back(absl::StrCat(field, ": ", *it, " is given twice"));
    }
  }
}

void CheckImageRoot(bool set, absl::string_view root,
                    std::vector<std::string>* errors) {
  if (set && root.empty()) {
    errors->push_back(
        "image_root: got an empty name; leave it out to mean the folder of "
        "each file");
  }
}

bool JsonHas(dom::object record, absl::string_view key) {
  dom::element value;
  return record.at_key(std::string_view(key.data(), key.size())).get(value) ==
             simdjson::SUCCESS &&
         !value.is_null();
}

}  // namespace semvq
