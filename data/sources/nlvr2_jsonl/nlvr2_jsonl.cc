#include "data/sources/nlvr2_jsonl/nlvr2_jsonl.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

JsonFileFormat Format() {
  return {JsonFileFormat::kLines,
          {},
          "NLVR2 .jsonl, a line each like {\"identifier\": \"dev-850-0-1\", "
          "\"sentence\": \"...\", \"label\": \"True\"}",
          "Nlvr2JsonlConfig.path"};
}

bool IsNumber(absl::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// "dev-850-0-1" is pair "dev-850-0".
absl::StatusOr<std::string> PairOf(const std::string& identifier) {
  const std::vector<std::string> parts = absl::StrSplit(identifier, '-');
  if (parts.size() != 4 || parts[0].empty() || parts[0].find('/') == 0 ||
      absl::StrContains(parts[0], "/") || !IsNumber(parts[1]) ||
      !IsNumber(parts[2]) || !IsNumber(parts[3])) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"identifier\": got \"", identifier,
                     "\", expected split-set-pair-sentence as in dev-850-0-1"));
  }
  return absl::StrCat(parts[0], "-", parts[1], "-", parts[2]);
}

absl::Status ReadLabel(dom::object line, SampleTable::Text* text) {
  dom::element label;
  if (line.at_key("label").get(label) != simdjson::SUCCESS) {
    return absl::OkStatus();
  }
  bool truth = false;
  std::string_view word;
  if (label.get(truth) == simdjson::SUCCESS) {
    text->answers = {{truth ? "true" : "false", 1.0f}};
    return absl::OkStatus();
  }
  if (label.get(word) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat("\"label\": got ",
                                                   JsonTypeName(label),
                                                   ", expected \"True\" or "
                                                   "\"False\""));
  }
  const std::string lower =
      absl::AsciiStrToLower(absl::string_view(word.data(), word.size()));
  if (lower != "true" && lower != "false") {
    return absl::InvalidArgumentError(
        absl::StrCat("\"label\": got \"", std::string(word),
                     "\", expected \"True\" or \"False\""));
  }
  text->answers = {{lower, 1.0f}};
  return absl::OkStatus();
}

absl::Status ReadLine(const JsonRecord& json, SampleTable::Record* record) {
  absl::StatusOr<dom::object> line = JsonObject(json);
  if (!line.ok()) return line.status();
  SampleTable::Text text;
  absl::StatusOr<std::string> identifier = JsonText(*line, "identifier");
  if (!identifier.ok()) return identifier.status();
  absl::StatusOr<std::string> pair = PairOf(*identifier);
  if (!pair.ok()) return pair.status();
  text.id = *std::move(identifier);
  absl::StatusOr<std::string> sentence = JsonWords(*line, "sentence");
  if (!sentence.ok()) return sentence.status();
  text.text = *std::move(sentence);
  const absl::Status labelled = ReadLabel(*line, &text);
  if (!labelled.ok()) return labelled;
  std::string folder;
  if (JsonHas(*line, "directory")) {
    absl::StatusOr<std::string> directory = JsonText(*line, "directory");
    if (!directory.ok()) return directory.status();
    if (absl::StrContains(*directory, "..") ||
        absl::StartsWith(*directory, "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"directory\": got \"", *directory,
                       "\", expected a folder inside image_root"));
    }
    if (!directory->empty()) folder = absl::StrCat(*directory, "/");
  }
  record->image_id = *pair;
  record->images = {absl::StrCat(folder, *pair, "-img0.png"),
                    absl::StrCat(folder, *pair, "-img1.png")};
  record->texts.clear();
  record->texts.push_back(std::move(text));
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateNlvr2Jsonl(const Nlvr2JsonlConfig& config) {
  std::vector<std::string> errors;
  if (config.path().empty()) {
    errors.push_back(
        absl::StrCat("path: none given; expected ", Format().wanted));
  }
  CheckNames("path", {config.path().begin(), config.path().end()}, &errors);
  CheckImageRoot(config.has_image_root(), config.image_root(), &errors);
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract Nlvr2JsonlContract(const std::string&, const Nlvr2JsonlConfig& config,
                            const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back({"path", path, Format().wanted});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeNlvr2Jsonl(
    const Nlvr2JsonlConfig& config, const PluginContext&) {
  auto table = std::make_shared<SampleTable>("line");
  absl::flat_hash_map<std::string, std::string> identifiers;
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
          const absl::Status added = ReadLine(json, &record);
          if (!added.ok()) {
            if (first.ok()) first = added;
            table->AddBad(record.file, json.number, added);
            return absl::OkStatus();
          }
          const std::string where = table->Where(record.file, json.number);
          const auto [it, fresh] =
              identifiers.try_emplace(record.texts[0].id, where);
          if (!fresh) {
            return absl::InvalidArgumentError(absl::StrCat(
                where, ": the identifier ", record.texts[0].id,
                " occurs already at ", it->second,
                "; expected each once, for consistency is counted by it"));
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
