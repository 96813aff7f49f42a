#include "data/albef_record.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/json_records.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr const char* kTextKeys[] = {"caption", "question", "sentence", "text"};

// `what` completes "expected ...".
absl::StatusOr<absl::string_view> String(dom::element value,
                                         absl::string_view key,
                                         absl::string_view what) {
  std::string_view raw;
  if (value.get(raw) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", key, "\": got ", JsonTypeName(value), ", expected ", what));
  }
  return absl::string_view(raw.data(), raw.size());
}

// A string, or an integer's digits.
absl::Status ReadId(dom::element value, absl::string_view key,
                    std::string* id) {
  if (value.is_int64() || value.is_uint64()) {
    *id = value.is_int64() ? absl::StrCat(int64_t{value.get_int64()})
                           : absl::StrCat(uint64_t{value.get_uint64()});
    return absl::OkStatus();
  }
  absl::StatusOr<absl::string_view> text =
      String(value, key, "a string or an integer");
  if (!text.ok()) return text.status();
  id->assign(text->data(), text->size());
  return absl::OkStatus();
}

absl::Status ReadImage(dom::element value, absl::string_view key,
                       std::vector<std::string>* images) {
  absl::StatusOr<absl::string_view> name =
      String(value, key, "the path of an image file");
  if (!name.ok()) return name.status();
  if (name->empty() || absl::StrContains(*name, '\0')) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got \"", absl::CHexEscape(*name),
                     "\", expected the path of an image file"));
  }
  images->emplace_back(name->data(), name->size());
  return absl::OkStatus();
}

// What the annotators weigh: one over their number, or "weights".
absl::Status ReadWeights(dom::object record, absl::string_view key,
                         std::vector<float>* weights, int* annotators) {
  dom::element given;
  if (record.at_key("weights").get(given) != simdjson::SUCCESS)
    return absl::OkStatus();
  dom::array list;
  if (given.get(list) != simdjson::SUCCESS || list.size() != weights->size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"weights\": got ",
        given.is_array() ? absl::StrCat(list.size(), " numbers")
                         : JsonTypeName(given),
        ", expected ", weights->size(), ", one for each of \"", key, "\""));
  }
  *annotators = 1;  // Not known.
  size_t i = 0;
  for (dom::element w : list) {
    double weight = 0;
    if (w.get(weight) != simdjson::SUCCESS || !std::isfinite(weight) ||
        weight < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"weights\": element ", i, ": got ", simdjson::minify(w),
          ", expected a number of at least 0"));
    }
    (*weights)[i++] = static_cast<float>(weight);
  }
  return absl::OkStatus();
}

// Distinct answers with their weights, and how many annotators they are of.
absl::Status ReadAnswers(dom::object record, SampleTable::Text* text) {
  dom::element value;
  absl::string_view key;
  for (const char* candidate : {"answer", "answers", "label"}) {
    if (record.at_key(candidate).get(value) != simdjson::SUCCESS) continue;
    key = candidate;
    break;
  }
  if (key.empty()) return absl::OkStatus();  // Test records have none.
  if (value.is_bool()) {
    text->answers = {{bool{value.get_bool()} ? "true" : "false", 1.0f}};
    return absl::OkStatus();
  }
  std::vector<dom::element> values;
  if (value.is_array()) {
    for (dom::element v : value.get_array()) values.push_back(v);
    if (values.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\": got an empty list"));
  } else {
    values.push_back(value);
  }
  std::vector<float> weights(values.size(),
                             1.0f / static_cast<float>(values.size()));
  text->annotators = static_cast<int>(values.size());
  absl::Status status = ReadWeights(record, key, &weights, &text->annotators);
  if (!status.ok()) return status;
  for (size_t i = 0; i < values.size(); ++i) {
    absl::StatusOr<absl::string_view> answer =
        String(values[i], key, "a string or a list of strings");
    if (!answer.ok()) return answer.status();
    auto& known = text->answers;
    size_t j = 0;
    while (j < known.size() && known[j].first != *answer) ++j;
    if (j == known.size()) known.emplace_back(std::string(*answer), 0.0f);
    known[j].second += weights[i];
  }
  return absl::OkStatus();
}

absl::Status ReadWords(dom::element value, absl::string_view key,
                       std::string* words) {
  absl::StatusOr<absl::string_view> s =
      String(value, key, "a string or a list of strings");
  if (!s.ok()) return s.status();
  if (absl::StripAsciiWhitespace(*s).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got an empty text, expected words"));
  }
  words->assign(s->data(), s->size());
  return absl::OkStatus();
}

}  // namespace

const char kAlbefFormat[] =
    "a JSON list of records such as {\"image\": \"a.jpg\", \"caption\": \"a "
    "cat\"} or "
    "{\"image\": \"a.jpg\", \"question\": \"what is it?\", \"answer\": \"a "
    "cat\"}";

absl::Status ReadAlbefImages(dom::object record,
                             std::vector<std::string>* images) {
  images->clear();
  dom::element value;
  absl::string_view key = "image";
  if (record.at_key("images").get(value) == simdjson::SUCCESS) {
    key = "images";
  } else if (record.at_key("image").get(value) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        "the key \"image\" is missing; expected the path of an image file");
  }
  if (!value.is_array()) return ReadImage(value, key, images);
  for (dom::element path : value.get_array()) {
    const absl::Status status = ReadImage(path, key, images);
    if (!status.ok()) return status;
  }
  if (images->empty())
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got an empty list"));
  return absl::OkStatus();
}

absl::Status ReadAlbefId(dom::object record, absl::string_view key,
                         std::string* id) {
  id->clear();
  dom::element value;
  if (record.at_key({key.data(), key.size()}).get(value) != simdjson::SUCCESS)
    return absl::OkStatus();
  return ReadId(value, key, id);
}

absl::Status ReadAlbefTexts(dom::object record,
                            std::vector<SampleTable::Text>* texts) {
  dom::element value, found;
  std::vector<absl::string_view> keys;
  for (const char* key : kTextKeys) {
    if (record.at_key(key).get(found) != simdjson::SUCCESS) continue;
    keys.push_back(key);
    value = found;
  }
  if (keys.empty()) {
    return absl::InvalidArgumentError(
        "the key \"caption\" (or \"question\", \"sentence\", \"text\") is "
        "missing");
  }
  if (keys.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got the keys \"", absl::StrJoin(keys, "\" and \""),
        "\", expected one of them, for it is not clear which is the text"));
  }
  SampleTable::Text text;
  for (const char* key : {"question_id", "ref_id", "caption_id"}) {
    if (record.at_key(key).get(found) != simdjson::SUCCESS) continue;
    const absl::Status status = ReadId(found, key, &text.id);
    if (!status.ok()) return status;
    break;
  }
  if (keys[0] != "caption") {
    const absl::Status status = ReadAnswers(record, &text);
    if (!status.ok()) return status;
  }
  texts->clear();
  if (!value.is_array()) {
    texts->push_back(std::move(text));
    return ReadWords(value, keys[0], &texts->back().text);
  }
  for (dom::element v : value.get_array()) {
    const absl::Status status = ReadWords(v, keys[0], &text.text);
    if (!status.ok()) return status;
    texts->push_back(text);
  }
  if (texts->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", keys[0], "\": got an empty list, expected a text"));
  }
  return absl::OkStatus();
}

absl::Status ReadAlbefKeywords(dom::object record, absl::string_view key,
                               std::vector<SampleTable::Text>* texts) {
  dom::element value, caption;
  if (record.at_key({key.data(), key.size()}).get(value) != simdjson::SUCCESS)
    return absl::OkStatus();
  if (record.at_key("caption").get(caption) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("got the key \"", key,
                     "\" in a record without \"caption\", expected "
                     "keywords of a caption's image"));
  }
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got ", JsonTypeName(value),
                     ", expected a list of strings"));
  }
  std::vector<std::string> kept;
  for (dom::element v : list) {
    std::string word;
    const absl::Status status = ReadWords(v, key, &word);
    if (!status.ok()) return status;
    const bool known =
        std::any_of(texts->begin(), texts->end(), [&](const auto& text) {
          return absl::EqualsIgnoreCase(text.text, word);
        });
    if (!known) kept.push_back(std::move(word));
  }
  if (kept.empty()) return absl::OkStatus();
  SampleTable::Text text;
  text.text = absl::StrJoin(kept, ", ");
  texts->push_back(std::move(text));
  return absl::OkStatus();
}

}  // namespace semvq
