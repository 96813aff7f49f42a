#include "data/sources/coco_captions/coco_captions.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

JsonFileFormat Format() {
  return {JsonFileFormat::kLists,
          {"images", "annotations"},
          "COCO captions, {\"images\": [{\"id\": 7, \"file_name\": "
          "\"a.jpg\"}], \"annotations\": [{\"id\": 3, \"image_id\": 7, "
          "\"caption\": \"A cat.\"}]}",
          "CocoCaptionsConfig.path"};
}

// One file; which of its two lists comes first is not fixed.
class AnnotationReader {
 public:
  AnnotationReader(const std::string& path, const std::string& image_root,
                   SampleTable* table)
      : path_(path), table_(*table), file_(table->AddFile(path, image_root)) {}

  absl::Status Read() {
    const JsonFileFormat format = Format();
    const absl::Status status = ReadJsonRecords(
        path_, format, [&](const JsonRecord& json) -> absl::Status {
          return json.list == 0 ? AddImage(json) : AddCaption(json);
        });
    if (!status.ok()) return status;
    if (images_.empty()) return Empty("images");
    if (annotations_ == 0) return Empty("annotations");
    return Join(format);
  }

 private:
  struct Image {
    std::string id, name;
    absl::Status error;  // Of the record, or of a caption of it.
  };

  absl::Status Empty(absl::string_view list) const {
    const std::string guess = GuessFormat(path_);
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": the list \"", list, "\" is empty; expected ", Format().wanted,
        guess.empty() ? "" : absl::StrCat("; it looks like ", guess)));
  }

  absl::Status AddImage(const JsonRecord& json) {
    Image image;
    image.error = [&]() -> absl::Status {
      absl::StatusOr<dom::object> object = JsonObject(json);
      if (!object.ok()) return object.status();
      absl::StatusOr<std::string> id = JsonText(*object, "id");
      if (!id.ok()) return id.status();
      image.id = *std::move(id);
      absl::StatusOr<std::string> name = JsonWords(*object, "file_name");
      if (!name.ok()) return name.status();
      image.name = *std::move(name);
      return absl::OkStatus();
    }();
    if (!image.id.empty()) {
      const auto [it, fresh] = by_id_.try_emplace(image.id, images_.size());
      if (!fresh) {
        return absl::InvalidArgumentError(absl::StrCat(
            table_.Where(file_, json.number), ": the id ", image.id,
            " occurs already at image ", it->second, "; expected each once"));
      }
    }
    images_.push_back(std::move(image));
    return absl::OkStatus();
  }

  // A caption that cannot be used makes its image a bad sample: without it,
  // a score would be over fewer captions than the file has.
  absl::Status AddCaption(const JsonRecord& json) {
    ++annotations_;
    const std::string where = absl::StrCat("annotation ", json.number);
    const auto stop = [&](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": ", where, ": ", why));
    };
    absl::StatusOr<dom::object> object = JsonObject(json);
    if (!object.ok()) return stop(object.status().message());
    absl::StatusOr<std::string> image = JsonText(*object, "image_id");
    if (!image.ok()) {
      return NoUsableRecord(path_, Format(), annotations_,
                            stop(image.status().message()));
    }
    SampleTable::Text text;
    absl::StatusOr<std::string> id = JsonText(*object, "id");
    if (!id.ok()) return stop(id.status().message());
    if (!caption_ids_.insert(*id).second) {
      return stop(
          absl::StrCat("the id ", *id, " occurs already; expected each once"));
    }
    absl::StatusOr<std::string> words = JsonWords(*object, "caption");
    text.id = *std::move(id);
    auto& captions = captions_[*image];
    if (captions.texts.empty() && captions.error.ok()) captions.where = where;
    if (words.ok()) {
      text.text = *std::move(words);
      captions.texts.push_back(std::move(text));
    } else if (captions.error.ok()) {
      captions.error = absl::InvalidArgumentError(
          absl::StrCat(where, ": ", words.status().message()));
    }
    return absl::OkStatus();
  }

  absl::Status Join(const JsonFileFormat& format) {
    absl::Status first;
    int64_t good = 0;
    for (size_t i = 0; i < images_.size(); ++i) {
      const Image& image = images_[i];
      SampleTable::Record record;
      record.file = file_;
      record.number = static_cast<int64_t>(i);
      absl::Status error = image.error;
      const auto captions = captions_.find(image.id);
      if (captions != captions_.end() && !image.id.empty()) {
        if (error.ok()) error = captions->second.error;
        record.texts = std::move(captions->second.texts);
        captions_.erase(captions);
      } else if (error.ok()) {
        error = absl::InvalidArgumentError(
            absl::StrCat("the image ", image.id, " has no caption"));
      }
      if (!error.ok()) {
        if (first.ok()) first = error;
        table_.AddBad(file_, record.number, error);
        continue;
      }
      record.image_id = image.id;
      record.images = {image.name};
      table_.Add(record);
      ++good;
    }
    if (!captions_.empty()) {
      // The smallest id, whatever the order of the map.
      const auto lost = std::min_element(
          captions_.begin(), captions_.end(),
          [](const auto& a, const auto& b) { return a.first < b.first; });
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": ", lost->second.where, ": the image ",
                       lost->first, " is not among \"images\" (",
                       captions_.size(), " such images have captions)"));
    }
    if (good == 0) {
      return NoUsableRecord(path_, format, static_cast<int64_t>(images_.size()),
                            first);
    }
    return absl::OkStatus();
  }

  struct Captions {
    std::vector<SampleTable::Text> texts;
    std::string where;  // Of the first.
    absl::Status error;
  };

  const std::string path_;
  SampleTable& table_;
  const int file_;
  int64_t annotations_ = 0;
  std::vector<Image> images_;
  absl::flat_hash_map<std::string, size_t> by_id_;
  absl::flat_hash_map<std::string, Captions> captions_;
  absl::flat_hash_set<std::string> caption_ids_;
};

}  // namespace

absl::Status ValidateCocoCaptions(const CocoCaptionsConfig& config) {
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

Contract CocoCaptionsContract(const std::string&,
                              const CocoCaptionsConfig& config,
                              const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back({"path", path, Format().wanted});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeCocoCaptions(
    const CocoCaptionsConfig& config, const PluginContext&) {
  auto table = std::make_shared<SampleTable>("image");
  for (const std::string& path : config.path()) {
    const absl::Status status =
        AnnotationReader(path, config.image_root(), table.get()).Read();
    if (!status.ok()) return status;
  }
  const absl::Status status = table->Finish();
  if (!status.ok()) return status;
  return table;
}

}  // namespace semvq
