#include "core/checkpoint/safetensors_header.h"

#include <simdjson.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxDimensions = 64;
constexpr char kMetadata[] = "__metadata__";

absl::Status Bad(const std::string& path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(
      path, ": ", what, "; the file is damaged or is no safetensors file"));
}

absl::Status BadTensor(const std::string& path, absl::string_view name,
                       absl::string_view what) {
  return Bad(path, absl::StrCat("tensor \"", name, "\": ", what));
}

std::string_view TypeName(dom::element value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::INT64:
    case dom::element_type::UINT64:
      return "an integer";
    case dom::element_type::DOUBLE:
      return "a fraction";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "true or false";
    default:
      return "null";
  }
}

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

// Non-negative integers of an array; the error has no path yet.
absl::Status ParseIntegers(dom::element value, absl::string_view field,
                           std::vector<int64_t>* out) {
  dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    return absl::DataLossError(absl::StrCat(
        field, " is ", View(TypeName(value)), ", expected an array"));
  }
  if (array.size() > kMaxDimensions) {
    return absl::DataLossError(
        absl::StrCat(field, " has more than ", kMaxDimensions, " numbers"));
  }
  for (dom::element item : array) {
    int64_t number = 0;
    // get_int64 also refuses unsigned values past 2^63.
    if (item.get_int64().get(number) != simdjson::SUCCESS || number < 0) {
      return absl::DataLossError(
          absl::StrCat(field, " holds ", simdjson::minify(item),
                       ", expected integers from 0 to 2^63-1"));
    }
    out->push_back(number);
  }
  return absl::OkStatus();
}

absl::Status ParseEntry(dom::element value, SafetensorsEntry* entry) {
  dom::object fields;
  if (value.get_object().get(fields) != simdjson::SUCCESS) {
    return absl::DataLossError(absl::StrCat(
        "its entry is ", View(TypeName(value)), ", expected an object"));
  }
  bool has_dtype = false, has_shape = false, has_offsets = false;
  std::vector<int64_t> offsets;
  for (const auto field : fields) {
    const absl::string_view key = View(field.key);
    bool* seen = key == "dtype"          ? &has_dtype
                 : key == "shape"        ? &has_shape
                 : key == "data_offsets" ? &has_offsets
                                         : nullptr;
    if (seen == nullptr) {
      return absl::DataLossError(
          absl::StrCat("unknown field \"", key,
                       "\", expected dtype, shape and data_offsets"));
    }
    if (std::exchange(*seen, true)) {
      return absl::DataLossError(absl::StrCat("two fields \"", key, "\""));
    }
    if (seen == &has_dtype) {
      std::string_view dtype;
      if (field.value.get_string().get(dtype) != simdjson::SUCCESS) {
        return absl::DataLossError(absl::StrCat(
            "dtype is ", View(TypeName(field.value)), ", expected a string"));
      }
      entry->dtype = std::string(dtype);
    } else {
      absl::Status s = ParseIntegers(
          field.value, key, seen == &has_shape ? &entry->shape : &offsets);
      if (!s.ok()) return s;
    }
  }
  if (!has_dtype || !has_shape || !has_offsets) {
    return absl::DataLossError(absl::StrCat("field \"",
                                            !has_dtype   ? "dtype"
                                            : !has_shape ? "shape"
                                                         : "data_offsets",
                                            "\" is missing"));
  }
  if (offsets.size() != 2) {
    return absl::DataLossError(absl::StrCat("data_offsets has ", offsets.size(),
                                            " numbers, expected 2"));
  }
  entry->begin = offsets[0];
  entry->end = offsets[1];
  return absl::OkStatus();
}

// What can be said of one tensor alone.
absl::Status CheckEntry(const SafetensorsEntry& entry, int64_t data_size) {
  const int64_t item = SafetensorsItemSize(entry.dtype);
  if (item == 0) {
    return absl::DataLossError(absl::StrCat(
        "dtype ", entry.dtype,
        " is not supported, expected one of F64 F32 F16 BF16 I64 I32 I16 I8 "
        "U8 BOOL"));
  }
  const std::string range =
      absl::StrFormat("data_offsets [%d, %d)", entry.begin, entry.end);
  if (entry.begin > entry.end) {
    return absl::DataLossError(absl::StrCat(range, " end before they begin"));
  }
  if (entry.end > data_size) {
    return absl::DataLossError(
        absl::StrCat(range, " reach past the end of the data, which has ",
                     data_size, " bytes"));
  }
  const std::string shape =
      absl::StrCat("[", absl::StrJoin(entry.shape, ","), "]");
  // A zero dimension makes the tensor empty, however large the others are; but
  // no library can hold those, so their product must fit as well.
  int64_t bytes = item;
  bool empty = false;
  for (int64_t size : entry.shape) {
    if (size == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return absl::DataLossError(
          absl::StrCat("the size of shape ", shape, " overflows"));
    }
  }
  if (empty) bytes = 0;
  if (entry.end - entry.begin != bytes) {
    return absl::DataLossError(
        absl::StrCat(range, " span ", entry.end - entry.begin, " bytes, but ",
                     entry.dtype, " of shape ", shape, " needs ", bytes));
  }
  if (entry.begin % item != 0) {
    return absl::DataLossError(absl::StrCat(range, " are not aligned to the ",
                                            item, " bytes of ", entry.dtype));
  }
  return absl::OkStatus();
}

absl::Status ParseMetadata(dom::element value, const std::string& path,
                           std::map<std::string, std::string>* metadata) {
  dom::object fields;
  if (value.get_object().get(fields) != simdjson::SUCCESS) {
    return Bad(path, absl::StrCat(kMetadata, " is ", View(TypeName(value)),
                                  ", expected an object"));
  }
  for (const auto field : fields) {
    std::string_view text;
    if (field.value.get_string().get(text) != simdjson::SUCCESS) {
      return Bad(path, absl::StrCat(kMetadata, ".", View(field.key), " is ",
                                    View(TypeName(field.value)),
                                    ", expected a string"));
    }
    if (!metadata->emplace(std::string(field.key), std::string(text)).second) {
      return Bad(path, absl::StrCat(kMetadata, " has two entries \"",
                                    View(field.key), "\""));
    }
  }
  return absl::OkStatus();
}

void AppendJsonString(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", c);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

}  // namespace

int64_t SafetensorsItemSize(absl::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(
    absl::string_view json, int64_t data_size, const std::string& path) {
  if (json.empty() || json.front() != '{') {
    return Bad(path, "the header does not start with '{'");
  }
  dom::parser parser;
  dom::element root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    return Bad(path, absl::StrCat("the header is no valid JSON: ",
                                  simdjson::error_message(error)));
  }
  dom::object fields;
  if (root.get_object().get(fields) != simdjson::SUCCESS) {
    return Bad(path, "the header is no JSON object");
  }
  SafetensorsHeader header;
  absl::flat_hash_set<std::string> names;
  for (const auto field : fields) {
    std::string name(field.key);
    if (!names.insert(name).second) {
      return BadTensor(path, name, "the header has two entries of this name");
    }
    if (name == kMetadata) {
      if (absl::Status s = ParseMetadata(field.value, path, &header.metadata);
          !s.ok()) {
        return s;
      }
      continue;
    }
    SafetensorsEntry entry;
    entry.name = std::move(name);
    absl::Status s = ParseEntry(field.value, &entry);
    if (s.ok()) s = CheckEntry(entry, data_size);
    if (!s.ok()) return BadTensor(path, entry.name, s.message());
    header.entries.push_back(std::move(entry));
  }
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::pair(a.begin, a.end) <
                            std::pair(b.begin, b.end);
                   });
  int64_t at = 0;
  const SafetensorsEntry* before = nullptr;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin < at) {
      return BadTensor(path, entry.name,
                       absl::StrCat("its data starts at byte ", entry.begin,
                                    " and overlaps tensor \"", before->name,
                                    "\", which ends at ", at));
    }
    if (entry.begin > at) {
      return BadTensor(
          path, entry.name,
          absl::StrCat("its data starts at byte ", entry.begin,
                       ", but bytes from ", at, " on belong to no tensor"));
    }
    at = entry.end;
    before = &entry;
  }
  if (at != data_size) {
    return Bad(path, absl::StrCat("its tensors take ", at,
                                  " bytes, but the file holds ", data_size,
                                  " bytes of data"));
  }
  return header;
}

std::string FormatSafetensorsHeader(const SafetensorsHeader& header) {
  std::string out = "{";
  if (!header.metadata.empty()) {
    absl::StrAppend(&out, "\"", kMetadata, "\":{");
    for (const auto& [key, value] : header.metadata) {
      if (out.back() != '{') out.push_back(',');
      AppendJsonString(key, &out);
      out.push_back(':');
      AppendJsonString(value, &out);
    }
    out.push_back('}');
  }
  for (const SafetensorsEntry& entry : header.entries) {
    if (out.back() != '{') out.push_back(',');
    AppendJsonString(entry.name, &out);
    absl::StrAppend(&out, ":{\"dtype\":\"", entry.dtype, "\",\"shape\":[",
                    absl::StrJoin(entry.shape, ","), "],\"data_offsets\":[",
                    entry.begin, ",", entry.end, "]}");
  }
  out.push_back('}');
  out.append((8 - out.size() % 8) % 8, ' ');
  return out;
}

}  // namespace semvq
