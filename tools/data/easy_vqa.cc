#include "tools/data/easy_vqa.h"

#include <simdjson.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace semvq::tools {
namespace {

namespace fs = std::filesystem;

// Reads data/<split>/questions.json: a list of [question, answer, image].
absl::Status ReadQuestions(const std::string& folder, const std::string& split,
                           const std::set<std::string>& answers,
                           int64_t first_id, std::vector<VqaRecord>* records,
                           std::map<std::string, std::string>* images) {
  const std::string path = absl::StrCat(folder, "/", split, "/questions.json");
  auto bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  if (const auto error = parser.parse(*bytes).get(list)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": expected a JSON list: ", simdjson::error_message(error),
        "; reinstall the package easy-vqa"));
  }
  int64_t index = 0;
  for (const simdjson::dom::element item : list) {
    simdjson::dom::array triple;
    std::string_view question_text, answer_text;
    int64_t image = 0;
    if (item.get(triple) || triple.size() != 3 ||
        triple.at(0).get(question_text) || triple.at(1).get(answer_text) ||
        triple.at(2).get(image) || image < 0 || question_text.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": record ", index, " is ", simdjson::minify(item),
                       "; expected [question, answer, image number]"));
    }
    const std::string question(question_text), answer(answer_text);
    if (answers.count(answer) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": record ", index, " has the answer \"", answer,
                       "\", which answers.txt does not list"));
    }
    VqaRecord record;
    record.image = absl::StrCat("images/easy_vqa/", split, "/", image, ".png");
    record.image_id = absl::StrCat("easy_vqa/", split, "/", image);
    record.question = question;
    record.answer = answer;
    record.question_id = first_id + index++;
    images->emplace(record.image, absl::StrCat(folder, "/", split, "/images/",
                                               image, ".png"));
    records->push_back(std::move(record));
  }
  if (records->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds no questions; reinstall easy-vqa"));
  }
  return absl::OkStatus();
}

// Counts answers; ties go to the answer that was seen first.
class AnswerCounts {
 public:
  void Add(const std::string& answer) {
    auto it = std::find_if(counts_.begin(), counts_.end(),
                           [&](const auto& c) { return c.first == answer; });
    if (it == counts_.end()) it = counts_.insert(it, {answer, 0});
    ++it->second;
  }
  std::string Mode() const {
    return std::max_element(
               counts_.begin(), counts_.end(),
               [](const auto& a, const auto& b) { return a.second < b.second; })
        ->first;
  }

 private:
  std::vector<std::pair<std::string, int64_t>> counts_;
};

// The accuracies without an image, see EasyVqa.
void Baselines(const std::vector<VqaRecord>& train, EasyVqa* data) {
  AnswerCounts all;
  std::map<std::string, AnswerCounts> by_question;
  for (const VqaRecord& record : train) {
    all.Add(record.answer);
    by_question[record.question].Add(record.answer);
  }
  data->majority_answer = all.Mode();
  std::map<std::string, std::string> best;
  for (const auto& [question, counts] : by_question) {
    best[question] = counts.Mode();
  }
  int64_t majority = 0, question_only = 0;
  for (const VqaRecord& record : data->test) {
    majority += record.answer == data->majority_answer;
    const auto it = best.find(record.question);
    question_only += record.answer ==
                     (it == best.end() ? data->majority_answer : it->second);
  }
  const double n = static_cast<double>(data->test.size());
  data->majority_accuracy = majority / n;
  data->question_only_accuracy = question_only / n;
}

}  // namespace

absl::StatusOr<std::string> FindEasyVqa(const std::string& folder) {
  for (const char* inside : {"", "/data", "/easy_vqa/data"}) {
    if (folder.empty()) break;
    std::error_code error;
    const std::string candidate = folder + inside;
    if (fs::exists(candidate + "/answers.txt", error)) return candidate;
  }
  return absl::NotFoundError(absl::StrCat(
      "no easy-vqa data in ", folder.empty() ? "(no folder given)" : folder,
      "; get it by `pip install --no-deps --target FOLDER easy-vqa==1.0` and "
      "pass --easy_vqa_dir=FOLDER, or leave it out with --only=emoji,stamps"));
}

std::string EasyVqaVersion(const std::string& data_folder) {
  std::error_code error;
  const fs::path site =
      fs::path(data_folder).lexically_normal().parent_path().parent_path();
  for (fs::directory_iterator it(site, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    constexpr absl::string_view kHead = "easy_vqa-", kTail = ".dist-info";
    if (absl::StartsWith(name, kHead) && absl::EndsWith(name, kTail)) {
      return name.substr(kHead.size(),
                         name.size() - kHead.size() - kTail.size());
    }
  }
  return "unknown";
}

absl::StatusOr<EasyVqa> ConvertEasyVqa(const std::string& folder,
                                       OutputFolder* out) {
  auto data_folder = FindEasyVqa(folder);
  if (!data_folder.ok()) return data_folder.status();
  auto answers = ReadFile(*data_folder + "/answers.txt");
  if (!answers.ok()) return answers.status();
  std::set<std::string> known;
  for (absl::string_view line : absl::StrSplit(*answers, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (!line.empty()) known.emplace(line);
  }
  EasyVqa data;
  data.answers.assign(known.begin(), known.end());

  std::vector<VqaRecord> train;
  std::map<std::string, std::string> images;
  absl::Status status =
      ReadQuestions(*data_folder, "train", known, 0, &train, &images);
  if (!status.ok()) return status;
  if (train.size() > kFirstTestQuestion) {
    return absl::InvalidArgumentError(
        absl::StrCat(*data_folder, ": ", train.size(),
                     " training questions; expected easy-vqa 1.0 with 38575"));
  }
  status = ReadQuestions(*data_folder, "test", known, kFirstTestQuestion,
                         &data.test, &images);
  if (!status.ok()) return status;
  Baselines(train, &data);

  std::set<std::string> train_images, val_images, test_images;
  for (VqaRecord& record : train) {
    const bool val =
        HashFraction("image:" + record.image_id) < kVqaValidationShare;
    (val ? val_images : train_images).insert(record.image_id);
    (val ? data.val : data.train).push_back(std::move(record));
  }
  for (const VqaRecord& record : data.test) {
    test_images.insert(record.image_id);
  }
  data.train_images = static_cast<int64_t>(train_images.size());
  data.val_images = static_cast<int64_t>(val_images.size());
  data.test_images = static_cast<int64_t>(test_images.size());

  Progress progress("easy_vqa", static_cast<int64_t>(images.size()));
  constexpr absl::string_view kPngSignature = "\x89PNG\r\n\x1a\n";
  for (const auto& [target, source] : images) {
    progress.Add();
    auto bytes = ReadFile(source);
    if (!bytes.ok()) return bytes.status();
    if (!absl::StartsWith(*bytes, kPngSignature)) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, " is not a PNG file; reinstall easy-vqa"));
    }
    status = out->Write(target, *bytes);
    if (!status.ok()) return status;
  }
  progress.Done();
  return data;
}

}  // namespace semvq::tools
