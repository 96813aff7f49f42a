#include "core/eval/annotation_json.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

std::string TypeName(dom::element value) {
  switch (value.type()) {
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

bool Has(dom::element value, const char* key) {
  dom::object object;
  return value.get(object) == simdjson::SUCCESS &&
         object[key].error() == simdjson::SUCCESS;
}

// What a file is taken for, to say so where another one is wanted.
std::string LooksLike(dom::element root) {
  dom::array list;
  if (root.get(list) == simdjson::SUCCESS) {
    const bool any = list.size() > 0;
    const dom::element first = any ? list.at(0).value_unsafe() : root;
    if (any && Has(first, "question_id") && Has(first, "answer"))
      return "a list of predicted or ALBEF-style answers";
    if (any && Has(first, "image_id") && Has(first, "caption") &&
        !Has(first, "image"))
      return "a list of predicted captions";
    if (any && Has(first, "image"))
      return "a list of records in ALBEF's JSON format";
    return "a list";
  }
  if (Has(root, "questions")) return "VQA v2's questions file";
  if (Has(root, "images")) {
    dom::array annotations;
    if (root["annotations"].get(annotations) == simdjson::SUCCESS &&
        annotations.size() > 0) {
      const dom::element first = annotations.at(0).value_unsafe();
      if (Has(first, "caption")) return "COCO's captions file";
      if (Has(first, "bbox")) return "COCO's instances file";
    }
    if (root["images"].get(annotations) == simdjson::SUCCESS &&
        annotations.size() > 0 &&
        Has(annotations.at(0).value_unsafe(), "sentences"))
      return "Karpathy's dataset file";
    return "COCO's file of images without captions";
  }
  dom::array annotations;
  if (root["annotations"].get(annotations) == simdjson::SUCCESS &&
      annotations.size() > 0 &&
      Has(annotations.at(0).value_unsafe(), "question_id"))
    return "VQA v2's annotations file";
  return TypeName(root);
}

}  // namespace

absl::Status AnnotationRecord::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": ", message));
}

absl::StatusOr<dom::element> AnnotationRecord::Get(
    absl::string_view key, absl::string_view expected) const {
  dom::element value;
  if (object_[std::string_view(key.data(), key.size())].get(value) !=
      simdjson::SUCCESS) {
    return Error(
        absl::StrCat("the key \"", key, "\" is missing, expected ", expected));
  }
  return value;
}

absl::StatusOr<std::string> AnnotationRecord::String(
    absl::string_view key) const {
  auto value = Get(key, "a string");
  if (!value.ok()) return value.status();
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) {
    return Error(absl::StrCat("\"", key, "\": got ", TypeName(*value),
                              ", expected a string"));
  }
  return std::string(text);
}

absl::StatusOr<std::string> AnnotationRecord::Id(absl::string_view key) const {
  auto value = Get(key, "an integer or a string");
  if (!value.ok()) return value.status();
  int64_t number = 0;
  if (value->get(number) == simdjson::SUCCESS) return absl::StrCat(number);
  std::string_view text;
  if (value->get(text) == simdjson::SUCCESS && !text.empty())
    return std::string(text);
  return Error(
      absl::StrCat("\"", key, "\": got ",
                   value->is_string() ? "an empty string" : TypeName(*value),
                   ", expected an integer or a string"));
}

absl::StatusOr<dom::array> AnnotationRecord::List(
    absl::string_view key, absl::string_view what) const {
  auto value = Get(key, absl::StrCat("a list: ", what));
  if (!value.ok()) return value.status();
  dom::array list;
  if (value->get(list) != simdjson::SUCCESS) {
    return Error(absl::StrCat("\"", key, "\": got ", TypeName(*value),
                              ", expected a list: ", what));
  }
  return list;
}

absl::StatusOr<AnnotationRecord> AnnotationRecord::Child(
    dom::element element, absl::string_view name) const {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) {
    return Error(absl::StrCat(name, ": got ", TypeName(element),
                              ", expected an object"));
  }
  return AnnotationRecord(object, absl::StrCat(where_, ".", name));
}

absl::Status ForEachAnnotation(
    const std::string& path, const AnnotationFormat& format,
    const std::function<absl::Status(const AnnotationRecord&)>& visit) {
  dom::parser parser;
  dom::element root;
  const simdjson::error_code error = parser.load(path).get(root);
  if (error == simdjson::IO_ERROR) {
    return absl::NotFoundError(
        absl::StrCat(path, ": cannot be read, expected ", format.name));
  }
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not valid JSON or cut off (", simdjson::error_message(error),
        "), expected ", format.name));
  }
  dom::object object;
  dom::array list;
  const bool fits = root.get(object) == simdjson::SUCCESS &&
                    object[format.list].get(list) == simdjson::SUCCESS;
  if (!fits || (list.size() > 0 &&
                !Has(list.at(0).value_unsafe(), format.key.c_str()))) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": looks like ", LooksLike(root), ", expected ",
                     format.name, ", an object with a list \"", format.list,
                     "\" of objects with \"", format.key, "\""));
  }
  const AnnotationRecord file(object, path);
  int64_t index = 0;
  for (const dom::element& element : list) {
    auto record =
        file.Child(element, absl::StrCat(format.list, "[", index++, "]"));
    if (!record.ok()) return record.status();
    if (absl::Status status = visit(*record); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace semvq
