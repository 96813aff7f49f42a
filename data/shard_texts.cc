#include "data/shard_texts.h"

#include <simdjson.h>

#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/util/json.h"
#include "data/albef_record.h"
#include "data/json_records.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

absl::Status Expected(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"texts\": expected ", what,
                   ", as in [{\"text\": \"a cat\", \"answers\": [[\"yes\", "
                   "1]]}]"));
}

absl::Status ReadAnswer(dom::element value, TextRecord* text) {
  dom::array pair;
  std::string_view answer;
  double share = 0;
  if (value.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
      pair.at(0).get(answer) != simdjson::SUCCESS ||
      pair.at(1).get(share) != simdjson::SUCCESS || !std::isfinite(share) ||
      share < 0) {
    return Expected("answers of a string and a share of at least 0");
  }
  text->answers.emplace_back(std::string(answer), static_cast<float>(share));
  return absl::OkStatus();
}

absl::Status ReadText(dom::element value, TextRecord* text) {
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return Expected("objects");
  absl::StatusOr<std::string> words = JsonWords(object, "text");
  if (!words.ok()) return words.status();
  text->text = *std::move(words);
  if (JsonHas(object, "id")) {
    absl::StatusOr<std::string> id = JsonText(object, "id");
    if (!id.ok()) return id.status();
    text->id = *std::move(id);
  }
  dom::element found;
  if (object.at_key("annotators").get(found) == simdjson::SUCCESS) {
    int64_t annotators = 0;
    if (found.get(annotators) != simdjson::SUCCESS || annotators < 1 ||
        annotators > 1000000) {
      return Expected("\"annotators\" of 1 to 1,000,000");
    }
    text->annotators = static_cast<int>(annotators);
  }
  if (object.at_key("answers").get(found) == simdjson::SUCCESS) {
    dom::array answers;
    if (found.get(answers) != simdjson::SUCCESS)
      return Expected("\"answers\" to be a list");
    for (dom::element answer : answers) {
      const absl::Status status = ReadAnswer(answer, text);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadOwnTexts(dom::element value, std::vector<TextRecord>* texts) {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS || list.size() == 0)
    return Expected("a list that is not empty");
  for (dom::element element : list) {
    TextRecord text;
    const absl::Status status = ReadText(element, &text);
    if (!status.ok()) return status;
    texts->push_back(std::move(text));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ShardTextsJson(const std::string& image_id,
                           const std::vector<TextRecord>& texts) {
  std::string out =
      absl::StrCat("{\"image_id\": ", JsonString(image_id), ", \"texts\": [");
  absl::string_view comma = "";
  for (const TextRecord& text : texts) {
    absl::StrAppend(&out, comma, "{");
    if (!text.id.empty())
      absl::StrAppend(&out, "\"id\": ", JsonString(text.id), ", ");
    absl::StrAppend(&out, "\"text\": ", JsonString(text.text));
    if (!text.answers.empty()) {
      absl::StrAppend(&out, ", \"answers\": [");
      absl::string_view between = "";
      for (const auto& [answer, share] : text.answers) {
        // Nine digits tell every float apart.
        char number[32];
        std::snprintf(number, sizeof(number), "%.9g",
                      static_cast<double>(share));
        absl::StrAppend(&out, between, "[", JsonString(answer), ", ", number,
                        "]");
        between = ", ";
      }
      absl::StrAppend(&out, "]");
    }
    if (text.annotators != 1)
      absl::StrAppend(&out, ", \"annotators\": ", text.annotators);
    absl::StrAppend(&out, "}");
    comma = ", ";
  }
  absl::StrAppend(&out, "]}\n");
  return out;
}

absl::Status ReadShardTexts(absl::string_view json, Sample* sample) {
  // Keeps its buffers from sample to sample.
  thread_local dom::parser parser;
  dom::object record;
  dom::element root;
  const simdjson::error_code error =
      parser.parse(json.data(), json.size(), true).get(root);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("not valid JSON (", simdjson::error_message(error), ")"));
  }
  if (root.get(record) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", JsonTypeName(root), ", expected an object {...}"));
  }
  std::string id;
  absl::Status status = ReadAlbefId(record, "image_id", &id);
  if (!status.ok()) return status;
  if (!id.empty()) sample->image_id = std::move(id);
  dom::element own;
  if (record.at_key("texts").get(own) == simdjson::SUCCESS)
    return ReadOwnTexts(own, &sample->texts);
  std::vector<SampleTable::Text> texts;
  status = ReadAlbefTexts(record, &texts);
  if (!status.ok()) return status;
  for (SampleTable::Text& text : texts) {
    TextRecord kept;
    kept.id = std::move(text.id);
    kept.text = std::move(text.text);
    kept.answers = std::move(text.answers);
    kept.annotators = text.annotators;
    sample->texts.push_back(std::move(kept));
  }
  return absl::OkStatus();
}

absl::Status ReadShardCaption(absl::string_view text, Sample* sample) {
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    return absl::InvalidArgumentError(
        "got bytes that are not UTF-8, expected UTF-8 text");
  }
  TextRecord record;
  record.text = std::string(absl::StripAsciiWhitespace(text));
  if (record.text.empty()) return absl::InvalidArgumentError("has no words");
  sample->texts.push_back(std::move(record));
  return absl::OkStatus();
}

}  // namespace semvq
