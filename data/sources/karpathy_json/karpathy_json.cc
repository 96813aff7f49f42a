#include "data/sources/karpathy_json/karpathy_json.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

JsonFileFormat Format() {
  return {JsonFileFormat::kLists,
          {"images"},
          "Karpathy's dataset_*.json, {\"images\": [{\"filepath\": "
          "\"val2014\", \"filename\": \"a.jpg\", \"split\": \"test\", "
          "\"cocoid\": 7, \"sentences\": [{\"raw\": \"A cat.\", \"sentid\": "
          "3}]}]}",
          "KarpathyJsonConfig.path"};
}

absl::Status ReadSentences(dom::object image, SampleTable::Record* record) {
  dom::array list;
  if (image.at_key("sentences").get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("\"sentences\" is missing or no list");
  }
  if (list.size() == 0) {
    return absl::InvalidArgumentError(
        "\"sentences\": got an empty list, expected captions");
  }
  for (dom::element item : list) {
    const auto bad = [&](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"sentences\"[", record->texts.size(), "]: ", why));
    };
    dom::object sentence;
    if (item.get(sentence) != simdjson::SUCCESS) {
      return bad(absl::StrCat("got ", JsonTypeName(item),
                              ", expected {\"raw\": \"...\"}"));
    }
    SampleTable::Text text;
    absl::StatusOr<std::string> raw = JsonWords(sentence, "raw");
    if (!raw.ok()) return bad(raw.status().message());
    text.text = *std::move(raw);
    if (JsonHas(sentence, "sentid")) {
      absl::StatusOr<std::string> id = JsonText(sentence, "sentid");
      if (!id.ok()) return bad(id.status().message());
      text.id = *std::move(id);
    }
    record->texts.push_back(std::move(text));
  }
  return absl::OkStatus();
}

absl::Status ReadImage(dom::object image, SampleTable::Record* record) {
  absl::StatusOr<std::string> name = JsonWords(image, "filename");
  if (!name.ok()) return name.status();
  std::string path = *std::move(name);
  if (JsonHas(image, "filepath")) {
    absl::StatusOr<std::string> folder = JsonText(image, "filepath");
    if (!folder.ok()) return folder.status();
    if (!folder->empty()) path = absl::StrCat(*folder, "/", path);
  }
  absl::StatusOr<std::string> id =
      JsonText(image, JsonHas(image, "cocoid") ? "cocoid" : "imgid");
  if (!id.ok()) return id.status();
  record->image_id = *std::move(id);
  record->images = {std::move(path)};
  record->texts.clear();
  return ReadSentences(image, record);
}

class Reader {
 public:
  explicit Reader(const KarpathyJsonConfig& config)
      : config_(config), table_(std::make_shared<SampleTable>("image")) {}

  absl::StatusOr<std::shared_ptr<DataSource>> Read() {
    for (const std::string& path : config_.path()) {
      const absl::Status status = ReadFile(path);
      if (!status.ok()) return status;
    }
    const absl::Status status = table_->Finish();
    if (!status.ok()) return status;
    return table_;
  }

 private:
  bool Wanted(const std::string& split) const {
    return std::find(config_.split().begin(), config_.split().end(), split) !=
           config_.split().end();
  }
  absl::Status ReadFile(const std::string& path);

  const KarpathyJsonConfig& config_;
  std::shared_ptr<SampleTable> table_;
};

absl::Status Reader::ReadFile(const std::string& path) {
  const JsonFileFormat format = Format();
  SampleTable::Record record;
  record.file = table_->AddFile(path, config_.image_root());
  std::map<std::string, int64_t> splits;
  absl::flat_hash_map<std::string, int64_t> ids;
  int64_t records = 0, good = 0;
  absl::Status first;
  const absl::Status status = ReadJsonRecords(
      path, format, [&](const JsonRecord& json) -> absl::Status {
        ++records;
        record.number = json.number;
        absl::StatusOr<dom::object> image = JsonObject(json);
        absl::StatusOr<std::string> split =
            image.ok() ? JsonText(*image, "split") : image.status();
        // Of a record without a split nobody knows whether it is wanted.
        absl::Status added = split.status();
        if (split.ok()) {
          ++splits[*split];
          if (!Wanted(*split)) return absl::OkStatus();
          added = ReadImage(*image, &record);
        }
        if (!added.ok()) {
          if (first.ok()) first = added;
          table_->AddBad(record.file, json.number, added);
          return absl::OkStatus();
        }
        const auto [it, fresh] = ids.try_emplace(record.image_id, json.number);
        if (!fresh) {
          return absl::InvalidArgumentError(absl::StrCat(
              table_->Where(record.file, json.number), ": the image ",
              record.image_id, " occurs already at image ", it->second,
              "; expected each once, with all its sentences"));
        }
        ++good;
        table_->Add(record);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (records == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": the list \"images\" is empty; expected ", format.wanted));
  }
  if (good > 0) return absl::OkStatus();
  if (!first.ok()) return NoUsableRecord(path, format, records, first);
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": no image is of split ", absl::StrJoin(config_.split(), " or "),
      "; the file has ",
      absl::StrJoin(splits, ", ", [](std::string* out, const auto& split) {
        absl::StrAppend(out, split.first, " (", split.second, ")");
      })));
}

}  // namespace

absl::Status ValidateKarpathyJson(const KarpathyJsonConfig& config) {
  std::vector<std::string> errors;
  if (config.path().empty()) {
    errors.push_back(
        absl::StrCat("path: none given; expected ", Format().wanted));
  }
  if (config.split().empty()) {
    errors.push_back(
        "split: none given; expected some of train, restval, val, test");
  }
  CheckNames("path", {config.path().begin(), config.path().end()}, &errors);
  CheckNames("split", {config.split().begin(), config.split().end()}, &errors);
  CheckImageRoot(config.has_image_root(), config.image_root(), &errors);
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract KarpathyJsonContract(const std::string&,
                              const KarpathyJsonConfig& config,
                              const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back({"path", path, Format().wanted});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeKarpathyJson(
    const KarpathyJsonConfig& config, const PluginContext&) {
  return Reader(config).Read();
}

}  // namespace semvq
