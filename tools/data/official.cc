// What there is already, in the official formats.
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tools/data/benchmarks.h"
#include "tools/data/picture.h"

namespace semvq::tools {
namespace {

constexpr int kAnnotators = 10;

std::string Lines(const std::vector<std::string>& records) {
  return absl::StrCat("[\n", absl::StrJoin(records, ",\n"), "\n]");
}

std::string Info(absl::string_view description, absl::string_view url) {
  return absl::StrCat("{\"description\": ", JsonString(description),
                      ", \"url\": ", JsonString(url), "}");
}

// "easy_vqa/train/17" is picture 17 of its folder.
int64_t ImageNumber(const VqaRecord& record) {
  return std::atoll(
      record.image_id.substr(record.image_id.find_last_of('/') + 1).c_str());
}

}  // namespace

std::string QuestionType(absl::string_view question) {
  // Of the 64 types of the official mscoco_question_types.txt, those that
  // easy-VQA's questions can begin with.
  constexpr absl::string_view kTypes[] = {"what is the color of the",
                                          "what color is the",
                                          "what is the",
                                          "what color is",
                                          "what color",
                                          "what is",
                                          "what",
                                          "is there a",
                                          "is there",
                                          "is the",
                                          "is this a",
                                          "is this",
                                          "is",
                                          "does the",
                                          "does this",
                                          "do",
                                          "how many",
                                          "how",
                                          "which"};
  absl::string_view longest;
  for (const absl::string_view type : kTypes) {
    const bool begins =
        absl::StartsWith(question, type) &&
        (question.size() == type.size() || question[type.size()] == ' ' ||
         question[type.size()] == '?');
    if (begins && type.size() > longest.size()) longest = type;
  }
  return longest.empty() ? "none of the above" : std::string(longest);
}

absl::Status MakeVqaV2(const EasyVqa& data, OutputFolder* out,
                       SetReport report) {
  const std::string info = Info("easy-VQA 1.0 in the format of VQA v2",
                                "https://github.com/vzhou842/easy-VQA");
  const std::string license =
      "{\"name\": \"MIT\", \"url\": \"https://opensource.org/licenses/MIT\"}";
  int64_t before = out->BytesUnder("v2_easy_vqa_");
  for (const auto& [name, records] :
       {std::make_pair("train", &data.train), std::make_pair("val", &data.val),
        std::make_pair("test", &data.test)}) {
    std::vector<std::string> questions, annotations;
    for (const VqaRecord& record : *records) {
      const int64_t image = ImageNumber(record);
      questions.push_back(
          absl::StrCat("{\"image_id\": ", image,
                       ", \"question\": ", JsonString(record.question),
                       ", \"question_id\": ", record.question_id, "}"));
      // The data set has one answer a question; here all ten annotators agree.
      const std::string answer = JsonString(record.answer);
      std::vector<std::string> answers;
      for (int a = 1; a <= kAnnotators; ++a) {
        answers.push_back(absl::StrCat(
            "{\"answer\": ", answer,
            ", \"answer_confidence\": \"yes\", \"answer_id\": ", a, "}"));
      }
      const bool yes_no = record.answer == "yes" || record.answer == "no";
      annotations.push_back(absl::StrCat(
          "{\"question_type\": ", JsonString(QuestionType(record.question)),
          ", \"multiple_choice_answer\": ", answer, ", \"answers\": [",
          absl::StrJoin(answers, ", "), "], \"image_id\": ", image,
          ", \"answer_type\": ", yes_no ? "\"yes/no\"" : "\"other\"",
          ", \"question_id\": ", record.question_id, "}"));
    }
    const std::string head = absl::StrCat(
        "{\"info\": ", info, ", \"license\": ", license,
        ", \"data_type\": \"easy_vqa\", \"data_subtype\": ", JsonString(name));
    const std::string stem = absl::StrCat("v2_easy_vqa_", name);
    absl::Status status = out->Write(
        stem + "_questions.json",
        absl::StrCat(head, ", \"task_type\": \"Open-Ended\", \"questions\": ",
                     Lines(questions), "}\n"),
        true);
    if (!status.ok()) return status;
    status = out->Write(
        stem + "_annotations.json",
        absl::StrCat(head, ", \"annotations\": ", Lines(annotations), "}\n"),
        true);
    if (!status.ok()) return status;
    (*report.counts)[stem] = static_cast<int64_t>(records->size());
  }
  absl::StrAppend(
      report.summary,
      absl::StrFormat("           v2_easy_vqa_*.json     the same in the "
                      "official VQA v2 format, %.1f MB (MIT licence)\n",
                      (out->BytesUnder("v2_easy_vqa_") - before) / 1e6));
  return absl::OkStatus();
}

absl::Status MakeCocoCaptions(const std::string& name,
                              const std::vector<Pair>& pairs, int64_t first_id,
                              OutputFolder* out, SetReport report) {
  std::vector<std::string> images, captions;
  int64_t id = first_id;
  for (const Pair& pair : pairs) {
    auto bytes = ReadFile(absl::StrCat(out->root(), "/", pair.image));
    if (!bytes.ok()) return bytes.status();
    int width = 0, height = 0;
    absl::Status status = PngSize(*bytes, &width, &height);
    if (!status.ok()) return status;
    images.push_back(absl::StrCat(
        "{\"id\": ", id, ", \"file_name\": ", JsonString(pair.image),
        ", \"width\": ", width, ", \"height\": ", height,
        ", \"license\": ", pair.source == "stamps" ? 2 : 1, "}"));
    captions.push_back(absl::StrCat("{\"id\": ", id, ", \"image_id\": ", id,
                                    ", \"caption\": ", JsonString(pair.caption),
                                    "}"));
    ++id;
  }
  const std::string file = absl::StrCat("captions_", name, ".json");
  (*report.counts)[absl::StrCat("captions_", name)] = id - first_id;
  absl::StrAppend(report.summary,
                  absl::StrFormat("           %-22s %5d captions, in the "
                                  "format of COCO\n",
                                  file, id - first_id));
  return out->Write(
      file,
      absl::StrCat(
          "{\"info\": ", Info("Pictures with their names", ""),
          ", \"type\": \"captions\", \"licenses\": [{\"id\": 1, \"name\": "
          "\"SIL OFL 1.1 (picture), Unicode-DFS-2016 (name)\"}, {\"id\": 2, "
          "\"name\": \"GPL-2.0-or-later\"}], \"images\": ",
          Lines(images), ", \"annotations\": ", Lines(captions), "}\n"),
      true);
}

}  // namespace semvq::tools
