#include "data/sources/vqa_v2/vqa_v2.h"

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
#include "data/image_pattern.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr char kDefaultPattern[] =
    "{data_subtype}/COCO_{data_subtype}_{image_id:012}.jpg";
constexpr char kImageId[] = "image_id";
constexpr char kSubtype[] = "data_subtype";

JsonFileFormat QuestionsFormat() {
  return {JsonFileFormat::kLists,
          {"questions"},
          "VQA v2 questions, {\"questions\": [{\"image_id\": 42, \"question\": "
          "\"...\", \"question_id\": 42000}]}",
          "VqaV2Config.questions"};
}

JsonFileFormat AnnotationsFormat() {
  return {JsonFileFormat::kLists,
          {"annotations"},
          "VQA v2 annotations, {\"annotations\": [{\"question_id\": 42000, "
          "\"answers\": [{\"answer\": \"net\"}, ...]}]}",
          "VqaV2Config.annotations"};
}

absl::StatusOr<ImagePattern> ParsePattern(const std::string& pattern) {
  return ImagePattern::Parse(pattern, {kImageId, kSubtype});
}

std::string PatternOf(const VqaV2Config& config, int file) {
  if (config.image_pattern().empty()) return kDefaultPattern;
  return config.image_pattern(config.image_pattern_size() == 1 ? 0 : file);
}

struct Annotation {
  std::vector<std::pair<std::string, float>> answers;
  int annotators = 1;
  int file = 0;  // Of the config's annotations.
  int64_t number = 0;
  std::string image_id;
  absl::Status error;  // Why the answers cannot be used.
  bool used = false;
};

class Reader {
 public:
  explicit Reader(const VqaV2Config& config)
      : config_(config),
        table_(std::make_shared<SampleTable>("question",
                                             config.group_by_image())) {}

  absl::StatusOr<std::shared_ptr<DataSource>> Read() {
    for (int i = 0; i < config_.annotations_size(); ++i) {
      const absl::Status status = ReadAnnotations(i);
      if (!status.ok()) return status;
    }
    for (int i = 0; i < config_.questions_size(); ++i) {
      const absl::Status status = ReadQuestions(i);
      if (!status.ok()) return status;
    }
    const absl::Status leftover = CheckAnnotations();
    if (!leftover.ok()) return leftover;
    const absl::Status status = table_->Finish();
    if (!status.ok()) return status;
    return table_;
  }

 private:
  absl::Status ReadAnnotations(int file);
  std::string Where(const Annotation& annotation) const {
    return absl::StrCat(config_.annotations(annotation.file), ": annotation ",
                        annotation.number);
  }
  absl::Status ReadAnswers(dom::object record, Annotation* annotation) const;
  absl::Status ReadQuestions(int file);
  absl::Status AddQuestion(const JsonRecord& json, const ImagePattern& pattern,
                           SampleTable::Record* record,
                           std::map<std::string, std::string>* values);
  absl::Status CheckAnnotations() const;

  const VqaV2Config& config_;
  std::shared_ptr<SampleTable> table_;
  absl::flat_hash_map<std::string, Annotation> annotations_;
  absl::flat_hash_map<std::string, std::pair<int, int64_t>> questions_;
};

absl::Status Reader::ReadAnswers(dom::object record,
                                 Annotation* annotation) const {
  dom::array list;
  if (record.at_key("answers").get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("\"answers\" is missing or no list");
  }
  if (list.size() == 0) {
    return absl::InvalidArgumentError(
        "\"answers\": got an empty list, expected one answer an annotator");
  }
  auto& answers = annotation->answers;
  const float share = 1.0f / static_cast<float>(list.size());
  annotation->annotators = static_cast<int>(list.size());
  std::vector<int> votes;
  int64_t i = 0;
  for (dom::element item : list) {
    dom::object object;
    if (item.get(object) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"answers\"[", i, "]: got ", JsonTypeName(item),
                       ", expected {\"answer\": \"...\"}"));
    }
    absl::StatusOr<std::string> answer = JsonText(object, "answer");
    if (!answer.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"answers\"[", i, "]: ", answer.status().message()));
    }
    size_t known = 0;
    while (known < answers.size() && answers[known].first != *answer) ++known;
    if (known == answers.size()) {
      answers.emplace_back(*std::move(answer), 0.0f);
      votes.push_back(0);
    }
    // Not a sum of shares: ten tenths are not one in float.
    answers[known].second = share * static_cast<float>(++votes[known]);
    ++i;
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadAnnotations(int file) {
  const std::string& path = config_.annotations(file);
  const JsonFileFormat format = AnnotationsFormat();
  int64_t records = 0, good = 0;
  absl::Status first;
  absl::Status status = ReadJsonRecords(
      path, format, [&](const JsonRecord& json) -> absl::Status {
        ++records;
        Annotation annotation;
        annotation.file = file;
        annotation.number = json.number;
        absl::StatusOr<dom::object> record = JsonObject(json);
        if (!record.ok()) {
          return absl::InvalidArgumentError(
              absl::StrCat(Where(annotation), ": ", record.status().message()));
        }
        const absl::StatusOr<std::string> id = JsonText(*record, "question_id");
        if (!id.ok()) {
          return NoUsableRecord(
              path, format, records,
              absl::InvalidArgumentError(absl::StrCat(
                  "annotation ", json.number, ": ", id.status().message())));
        }
        annotation.error = ReadAnswers(*record, &annotation);
        if (JsonHas(*record, kImageId)) {
          absl::StatusOr<std::string> image = JsonText(*record, kImageId);
          if (image.ok()) annotation.image_id = *std::move(image);
        }
        good += annotation.error.ok();
        if (first.ok()) first = annotation.error;
        const auto [it, fresh] =
            annotations_.try_emplace(*id, std::move(annotation));
        if (!fresh) {
          return absl::InvalidArgumentError(absl::StrCat(
              path, ": annotation ", json.number, ": question_id ", *id,
              " has an annotation already, at ", Where(it->second),
              "; expected one for each question"));
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (records == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     ": the list \"annotations\" is empty; leave the field "
                     "annotations out for a test split"));
  }
  if (good == 0) return NoUsableRecord(path, format, records, first);
  return absl::OkStatus();
}

absl::Status Reader::AddQuestion(const JsonRecord& json,
                                 const ImagePattern& pattern,
                                 SampleTable::Record* record,
                                 std::map<std::string, std::string>* values) {
  absl::StatusOr<dom::object> object = JsonObject(json);
  if (!object.ok()) return object.status();
  absl::StatusOr<std::string> id = JsonText(*object, "question_id");
  if (!id.ok()) return id.status();
  const auto [it, fresh] =
      questions_.try_emplace(*id, record->file, record->number);
  if (!fresh) {
    return absl::AlreadyExistsError(
        absl::StrCat(table_->Where(record->file, record->number),
                     ": question_id ", *id, " occurs already at ",
                     table_->Where(it->second.first, it->second.second),
                     "; expected each once, for results are told apart by it"));
  }
  SampleTable::Text text;
  const auto annotation = annotations_.find(*id);
  if (annotation != annotations_.end()) {
    annotation->second.used = true;
    text.answers = std::move(annotation->second.answers);
    text.annotators = annotation->second.annotators;
  }
  absl::StatusOr<std::string> image = JsonText(*object, kImageId);
  if (!image.ok()) return image.status();
  absl::StatusOr<std::string> question = JsonWords(*object, "question");
  if (!question.ok()) return question.status();
  if (!config_.annotations().empty()) {
    if (annotation == annotations_.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("question_id ", *id, " has no annotation"));
    }
    const Annotation& found = annotation->second;
    if (!found.error.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Where(found), ": ", found.error.message()));
    }
    if (!found.image_id.empty() && found.image_id != *image) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"image_id\": got ", *image, ", but ", Where(found),
                       " says ", found.image_id));
    }
  }
  (*values)[kImageId] = *image;
  absl::StatusOr<std::string> name = pattern.Fill(*values);
  if (!name.ok()) return name.status();
  text.id = *std::move(id);
  text.text = *std::move(question);
  record->image_id = *std::move(image);
  record->images = {*std::move(name)};
  record->texts.clear();
  record->texts.push_back(std::move(text));
  return absl::OkStatus();
}

absl::Status Reader::ReadQuestions(int file) {
  const std::string& path = config_.questions(file);
  const JsonFileFormat format = QuestionsFormat();
  absl::StatusOr<ImagePattern> pattern = ParsePattern(PatternOf(config_, file));
  if (!pattern.ok()) return pattern.status();
  std::map<std::string, std::string> values;
  if (pattern->Uses(kSubtype)) {
    absl::StatusOr<std::string> subtype = ReadTopLevelString(path, kSubtype);
    if (!subtype.ok()) return subtype.status();
    // The test-dev questions are about images of the test split.
    values[kSubtype] = *subtype == "test-dev2015" ? "test2015" : *subtype;
  }
  SampleTable::Record record;
  record.file = table_->AddFile(path, config_.image_root());
  int64_t good = 0, records = 0, without_annotation = 0;
  absl::Status first;
  absl::Status status = ReadJsonRecords(
      path, format, [&](const JsonRecord& json) -> absl::Status {
        if (records++ == 0 && pattern->Uses(kSubtype) &&
            values[kSubtype].empty()) {
          return absl::InvalidArgumentError(absl::StrCat(
              path,
              ": the file names no \"data_subtype\", which the image "
              "pattern ",
              PatternOf(config_, file), " needs; set image_pattern"));
        }
        record.number = json.number;
        const absl::Status added =
            AddQuestion(json, *pattern, &record, &values);
        if (absl::IsAlreadyExists(added)) {
          return absl::InvalidArgumentError(added.message());
        }
        if (added.ok()) {
          table_->Add(record);
          ++good;
          return absl::OkStatus();
        }
        without_annotation += absl::IsFailedPrecondition(added);
        if (first.ok()) first = added;
        table_->AddBad(record.file, json.number, added);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (records == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": the list \"questions\" is empty; expected ", format.wanted));
  }
  if (without_annotation == records) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": none of its ", records, " questions has an annotation in ",
        absl::StrJoin(config_.annotations(), ", "),
        "; are the files of one split?"));
  }
  if (good == 0) return NoUsableRecord(path, format, records, first);
  return absl::OkStatus();
}

absl::Status Reader::CheckAnnotations() const {
  int64_t lost = 0;
  const Annotation* first = nullptr;
  const std::string* id = nullptr;
  for (const auto& [key, annotation] : annotations_) {
    if (annotation.used) continue;
    ++lost;
    // The first of the files, whatever the order of the map.
    if (first == nullptr || std::make_pair(annotation.file, annotation.number) <
                                std::make_pair(first->file, first->number)) {
      first = &annotation;
      id = &key;
    }
  }
  if (lost == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      Where(*first), ": question_id ", *id, " is no question of ",
      absl::StrJoin(config_.questions(), ", "), " (", lost,
      " annotations have no question); are the files of one split?"));
}

}  // namespace

absl::Status ValidateVqaV2(const VqaV2Config& config) {
  std::vector<std::string> errors;
  if (config.questions().empty()) {
    errors.push_back(absl::StrCat("questions: none given; expected ",
                                  QuestionsFormat().wanted));
  }
  CheckNames("questions",
             {config.questions().begin(), config.questions().end()}, &errors);
  CheckNames("annotations",
             {config.annotations().begin(), config.annotations().end()},
             &errors);
  if (config.image_pattern_size() > 1 &&
      config.image_pattern_size() != config.questions_size()) {
    errors.push_back(
        absl::StrCat("image_pattern: got ", config.image_pattern_size(),
                     ", expected one for all or one for each of the ",
                     config.questions_size(), " questions files"));
  }
  for (const std::string& pattern : config.image_pattern()) {
    const absl::Status status = ParsePattern(pattern).status();
    if (!status.ok()) {
      errors.push_back(absl::StrCat("image_pattern: ", status.message()));
    }
  }
  CheckImageRoot(config.has_image_root(), config.image_root(), &errors);
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract VqaV2Contract(const std::string&, const VqaV2Config& config,
                       const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.questions()) {
    contract.files.push_back({"questions", path, QuestionsFormat().wanted});
  }
  for (const std::string& path : config.annotations()) {
    contract.files.push_back({"annotations", path, AnnotationsFormat().wanted});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeVqaV2(const VqaV2Config& config,
                                                      const PluginContext&) {
  return Reader(config).Read();
}

}  // namespace semvq
