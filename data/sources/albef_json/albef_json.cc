#include "data/sources/albef_json/albef_json.h"

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/albef_record.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

// Where a file's images are.
std::string RootOf(const AlbefJsonConfig& config, const std::string& path) {
  if (config.has_image_root()) return config.image_root();
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

JsonFileFormat Format() {
  return {JsonFileFormat::kList, {}, kAlbefFormat, "AlbefJsonConfig.path"};
}

absl::Status ReadRecord(const AlbefJsonConfig& config, const JsonRecord& json,
                        SampleTable::Record* record) {
  absl::StatusOr<simdjson::dom::object> object = JsonObject(json);
  if (!object.ok()) return object.status();
  absl::Status status = ReadAlbefImages(*object, &record->images);
  if (status.ok()) status = ReadAlbefId(*object, "image_id", &record->image_id);
  if (status.ok()) status = ReadAlbefTexts(*object, &record->texts);
  if (status.ok() && !config.keywords_key().empty()) {
    status = ReadAlbefKeywords(*object, config.keywords_key(), &record->texts);
  }
  if (status.ok() && !config.batch_group_key().empty()) {
    status =
        ReadAlbefId(*object, config.batch_group_key(), &record->batch_group);
  }
  return status;
}

absl::Status AddFile(const AlbefJsonConfig& config, const std::string& path,
                     SampleTable* table) {
  SampleTable::Record record;
  record.file = table->AddFile(path, RootOf(config, path));
  const absl::Status status = ReadJsonRecords(
      path, Format(), [&](const JsonRecord& json) -> absl::Status {
        record.number = json.number;
        const absl::Status read = ReadRecord(config, json, &record);
        if (read.ok()) {
          table->Add(record);
        } else {
          table->AddBad(record.file, json.number, read);
        }
        return absl::OkStatus();
      });
  if (absl::IsNotFound(status)) {
    return absl::NotFoundError(absl::StrCat(
        status.message(), ", with image paths relative to ",
        RootOf(config, path),
        ". To see SemVQ run without it: ./setup.sh fetches small real data, "
        "then use --config=quickstart.pbtxt"));
  }
  return status;
}

}  // namespace

absl::Status ValidateAlbefJson(const AlbefJsonConfig& config) {
  std::vector<std::string> errors;
  if (config.path().empty())
    errors.push_back(absl::StrCat("path: none given; expected ", kAlbefFormat));
  CheckNames("path", {config.path().begin(), config.path().end()}, &errors);
  if (config.batch_group_size() < 2) {
    errors.push_back(absl::StrCat("batch_group_size: got ",
                                  config.batch_group_size(),
                                  ", expected at least 2"));
  }
  CheckImageRoot(config.has_image_root(), config.image_root(), &errors);
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract AlbefJsonContract(const std::string&, const AlbefJsonConfig& config,
                           const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back(
        {"path", path,
         absl::StrCat(kAlbefFormat, "; image paths are relative to ",
                      config.has_image_root() ? config.image_root()
                                              : "the folder of the list")});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeAlbefJson(
    const AlbefJsonConfig& config, const PluginContext&) {
  auto table = std::make_shared<SampleTable>("record", config.group_by_image());
  if (!config.batch_group_key().empty())
    table->GroupBatches(config.batch_group_size());
  for (const std::string& path : config.path()) {
    const absl::Status status = AddFile(config, path, table.get());
    if (!status.ok()) return status;
  }
  const absl::Status status = table->Finish();
  if (!status.ok()) return status;
  if (!config.batch_group_key().empty() && table->batch_groups() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch_group_key: no record has the key \"",
                     config.batch_group_key(), "\""));
  }
  return table;
}

}  // namespace semvq
