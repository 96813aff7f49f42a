#include "data/sources/snli_ve_jsonl/snli_ve_jsonl.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "data/image_pattern.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr const char* kLabels[] = {"entailment", "neutral", "contradiction"};

JsonFileFormat Format() {
  return {JsonFileFormat::kLines,
          {},
          "SNLI-VE .jsonl, a line each like {\"Flickr30K_ID\": "
          "\"3416050480\", \"sentence2\": \"...\", \"gold_label\": "
          "\"neutral\"}",
          "SnliVeJsonlConfig.path"};
}

absl::StatusOr<ImagePattern> ParsePattern(const SnliVeJsonlConfig& config) {
  return ImagePattern::Parse(config.image_pattern(), {"id"});
}

absl::Status ReadLabel(dom::object line, SampleTable::Text* text) {
  if (!JsonHas(line, "gold_label")) return absl::OkStatus();
  absl::StatusOr<std::string> label = JsonText(line, "gold_label");
  if (!label.ok()) return label.status();
  if (*label == "-") {
    return absl::InvalidArgumentError(
        "\"gold_label\": got \"-\": the annotators did not agree, and the "
        "official files leave such lines out");
  }
  if (std::find(std::begin(kLabels), std::end(kLabels), *label) ==
      std::end(kLabels)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"gold_label\": got \"", *label, "\", expected ",
                     absl::StrJoin(kLabels, ", ")));
  }
  text->answers = {{*std::move(label), 1.0f}};
  return absl::OkStatus();
}

absl::Status ReadLine(const JsonRecord& json, const ImagePattern& pattern,
                      SampleTable::Record* record) {
  absl::StatusOr<dom::object> line = JsonObject(json);
  if (!line.ok()) return line.status();
  absl::StatusOr<std::string> image = JsonText(
      *line, JsonHas(*line, "Flikr30kID") ? "Flikr30kID" : "Flickr30K_ID");
  if (!image.ok()) return image.status();
  const std::string id(absl::StripSuffix(*image, ".jpg"));
  absl::StatusOr<std::string> name = pattern.Fill({{"id", id}});
  if (!name.ok()) return name.status();
  SampleTable::Text text;
  absl::StatusOr<std::string> words = JsonWords(*line, "sentence2");
  if (!words.ok()) return words.status();
  text.text = *std::move(words);
  if (JsonHas(*line, "pairID")) {
    absl::StatusOr<std::string> pair = JsonText(*line, "pairID");
    if (!pair.ok()) return pair.status();
    text.id = *std::move(pair);
  }
  const absl::Status labelled = ReadLabel(*line, &text);
  if (!labelled.ok()) return labelled;
  record->image_id = id;
  record->images = {*std::move(name)};
  record->texts.clear();
  record->texts.push_back(std::move(text));
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSnliVeJsonl(const SnliVeJsonlConfig& config) {
  std::vector<std::string> errors;
  if (config.path().empty()) {
    errors.push_back(
        absl::StrCat("path: none given; expected ", Format().wanted));
  }
  CheckNames("path", {config.path().begin(), config.path().end()}, &errors);
  const absl::Status pattern = ParsePattern(config).status();
  if (!pattern.ok()) {
    errors.push_back(absl::StrCat("image_pattern: ", pattern.message()));
  }
  CheckImageRoot(config.has_image_root(), config.image_root(), &errors);
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract SnliVeJsonlContract(const std::string&,
                             const SnliVeJsonlConfig& config,
                             const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back({"path", path, Format().wanted});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeSnliVeJsonl(
    const SnliVeJsonlConfig& config, const PluginContext&) {
  absl::StatusOr<ImagePattern> pattern = ParsePattern(config);
  if (!pattern.ok()) return pattern.status();
  auto table = std::make_shared<SampleTable>("line");
  absl::flat_hash_map<std::string, std::string> pairs;
  for (const std::string& path : config.path()) {
    const JsonFileFormat format = Format();
    SampleTable::Record record;
    record.file = table->AddFile(path, config.image_root());
    int64_t records = 0, good = 0;
    absl::Status first;
    const absl::Status status = ReadJsonRecords(
        path, format, [&](const JsonRecord& json) -> absl::Status {
          ++records;
          record.number = json.number;
          absl::Status added = ReadLine(json, *pattern, &record);
          if (added.ok() && !record.texts[0].id.empty()) {
            const std::string where = table->Where(record.file, json.number);
            const auto [it, fresh] =
                pairs.try_emplace(record.texts[0].id, where);
            if (!fresh) {
              added = absl::InvalidArgumentError(
                  absl::StrCat("the pairID ", record.texts[0].id,
                               " occurs already at ", it->second));
            }
          }
          if (!added.ok()) {
            if (first.ok()) first = added;
            table->AddBad(record.file, json.number, added);
            return absl::OkStatus();
          }
          ++good;
          table->Add(record);
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    if (good == 0) return NoUsableRecord(path, format, records, first);
  }
  const absl::Status status = table->Finish();
  if (!status.ok()) return status;
  return table;
}

}  // namespace semvq
