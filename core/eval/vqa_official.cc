#include "core/eval/vqa_official.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/eval/annotation_json.h"
#include "core/text/unicode.h"

namespace semvq {
namespace {

constexpr absl::string_view kPunctuation = ";/[]\"{}()=+\\_-><@`,?!";
constexpr int kPeriods = 32;

using Words = absl::flat_hash_map<absl::string_view, absl::string_view>;

const Words& NumberWords() {
  static const auto* words =
      new Words{{"none", "0"},  {"zero", "0"},  {"one", "1"},  {"two", "2"},
                {"three", "3"}, {"four", "4"},  {"five", "5"}, {"six", "6"},
                {"seven", "7"}, {"eight", "8"}, {"nine", "9"}, {"ten", "10"}};
  return *words;
}

// Keys that hold capital letters, or map to themselves, change nothing and are
// left out.
const Words& Contractions() {
  static const auto* words = new Words{{"aint", "ain't"},
                                       {"arent", "aren't"},
                                       {"cant", "can't"},
                                       {"couldve", "could've"},
                                       {"couldnt", "couldn't"},
                                       {"couldn'tve", "couldn't've"},
                                       {"couldnt've", "couldn't've"},
                                       {"didnt", "didn't"},
                                       {"doesnt", "doesn't"},
                                       {"dont", "don't"},
                                       {"hadnt", "hadn't"},
                                       {"hadnt've", "hadn't've"},
                                       {"hadn'tve", "hadn't've"},
                                       {"hasnt", "hasn't"},
                                       {"havent", "haven't"},
                                       {"hed", "he'd"},
                                       {"hed've", "he'd've"},
                                       {"he'dve", "he'd've"},
                                       {"hes", "he's"},
                                       {"howd", "how'd"},
                                       {"howll", "how'll"},
                                       {"hows", "how's"},
                                       {"isnt", "isn't"},
                                       {"itd", "it'd"},
                                       {"itd've", "it'd've"},
                                       {"it'dve", "it'd've"},
                                       {"itll", "it'll"},
                                       {"maam", "ma'am"},
                                       {"mightnt", "mightn't"},
                                       {"mightnt've", "mightn't've"},
                                       {"mightn'tve", "mightn't've"},
                                       {"mightve", "might've"},
                                       {"mustnt", "mustn't"},
                                       {"mustve", "must've"},
                                       {"neednt", "needn't"},
                                       {"notve", "not've"},
                                       {"oclock", "o'clock"},
                                       {"oughtnt", "oughtn't"},
                                       {"ow's'at", "'ow's'at"},
                                       {"'ows'at", "'ow's'at"},
                                       {"'ow'sat", "'ow's'at"},
                                       {"shant", "shan't"},
                                       {"shed've", "she'd've"},
                                       {"she'dve", "she'd've"},
                                       {"shouldve", "should've"},
                                       {"shouldnt", "shouldn't"},
                                       {"shouldnt've", "shouldn't've"},
                                       {"shouldn'tve", "shouldn't've"},
                                       {"somebody'd", "somebodyd"},
                                       {"somebodyd've", "somebody'd've"},
                                       {"somebody'dve", "somebody'd've"},
                                       {"somebodyll", "somebody'll"},
                                       {"somebodys", "somebody's"},
                                       {"someoned", "someone'd"},
                                       {"someoned've", "someone'd've"},
                                       {"someone'dve", "someone'd've"},
                                       {"someonell", "someone'll"},
                                       {"someones", "someone's"},
                                       {"somethingd", "something'd"},
                                       {"somethingd've", "something'd've"},
                                       {"something'dve", "something'd've"},
                                       {"somethingll", "something'll"},
                                       {"thats", "that's"},
                                       {"thered", "there'd"},
                                       {"thered've", "there'd've"},
                                       {"there'dve", "there'd've"},
                                       {"therere", "there're"},
                                       {"theres", "there's"},
                                       {"theyd", "they'd"},
                                       {"theyd've", "they'd've"},
                                       {"they'dve", "they'd've"},
                                       {"theyll", "they'll"},
                                       {"theyre", "they're"},
                                       {"theyve", "they've"},
                                       {"twas", "'twas"},
                                       {"wasnt", "wasn't"},
                                       {"wed've", "we'd've"},
                                       {"we'dve", "we'd've"},
                                       {"weve", "we've"},
                                       {"werent", "weren't"},
                                       {"whatll", "what'll"},
                                       {"whatre", "what're"},
                                       {"whats", "what's"},
                                       {"whatve", "what've"},
                                       {"whens", "when's"},
                                       {"whered", "where'd"},
                                       {"wheres", "where's"},
                                       {"whereve", "where've"},
                                       {"whod", "who'd"},
                                       {"whod've", "who'd've"},
                                       {"who'dve", "who'd've"},
                                       {"wholl", "who'll"},
                                       {"whos", "who's"},
                                       {"whove", "who've"},
                                       {"whyll", "why'll"},
                                       {"whyre", "why're"},
                                       {"whys", "why's"},
                                       {"wont", "won't"},
                                       {"wouldve", "would've"},
                                       {"wouldnt", "wouldn't"},
                                       {"wouldnt've", "wouldn't've"},
                                       {"wouldn'tve", "wouldn't've"},
                                       {"yall", "y'all"},
                                       {"yall'll", "y'all'll"},
                                       {"y'allll", "y'all'll"},
                                       {"yall'd've", "y'all'd've"},
                                       {"y'alld've", "y'all'd've"},
                                       {"y'all'dve", "y'all'd've"},
                                       {"youd", "you'd"},
                                       {"youd've", "you'd've"},
                                       {"you'dve", "you'd've"},
                                       {"youll", "you'll"},
                                       {"youre", "you're"},
                                       {"youve", "you've"}};
  return *words;
}

// Code points; -1 for a byte that is no part of one.
std::vector<int32_t> CodePoints(absl::string_view text) {
  std::vector<int32_t> codes;
  while (!text.empty()) {
    int32_t code = -1;
    const size_t used = DecodeUtf8(text, &code);
    codes.push_back(used > 0 ? code : -1);
    text.remove_prefix(std::max<size_t>(used, 1));
  }
  return codes;
}

bool CommaBetweenDigits(absl::string_view text) {
  if (!absl::StrContains(text, ',')) return false;
  const std::vector<int32_t> codes = CodePoints(text);
  for (size_t i = 1; i + 1 < codes.size(); ++i) {
    if (codes[i] == ',' && codes[i - 1] >= 0 && codes[i + 1] >= 0 &&
        IsUnicodeDigit(codes[i - 1]) && IsUnicodeDigit(codes[i + 1])) {
      return true;
    }
  }
  return false;
}

std::string ProcessPunctuation(absl::string_view text) {
  const bool comma = CommaBetweenDigits(text);
  std::string out(text);
  for (const char p : kPunctuation) {
    const std::string mark(1, p);
    const bool beside_space = absl::StrContains(text, mark + " ") ||
                              absl::StrContains(text, " " + mark);
    out = absl::StrReplaceAll(out, {{mark, comma || beside_space ? "" : " "}});
  }
  std::string kept;
  int periods = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] == '.' && periods < kPeriods) {
      int32_t next = -1;
      const bool digit =
          DecodeUtf8(absl::string_view(out).substr(i + 1), &next) > 0 &&
          IsUnicodeDigit(next);
      if (!digit) {
        ++periods;
        continue;
      }
    }
    kept.push_back(out[i]);
  }
  return kept;
}

std::string ProcessWords(absl::string_view text) {
  std::vector<std::string> words;
  for (std::string& word : SplitUnicodeSpace(LowerUtf8(text))) {
    if (const auto number = NumberWords().find(word);
        number != NumberWords().end()) {
      word = std::string(number->second);
    }
    if (word == "a" || word == "an" || word == "the") continue;
    if (const auto whole = Contractions().find(word);
        whole != Contractions().end()) {
      word = std::string(whole->second);
    }
    words.push_back(std::move(word));
  }
  return absl::StrJoin(words, " ");
}

absl::Status AddAnswers(const AnnotationRecord& record,
                        VqaAnnotation* annotation) {
  auto answers = record.List("answers", "what each annotator said");
  if (!answers.ok()) return answers.status();
  std::set<std::string> annotators;
  for (const simdjson::dom::element& element : *answers) {
    auto said = record.Child(
        element, absl::StrCat("answers[", annotation->answers.size(), "]"));
    if (!said.ok()) return said.status();
    auto text = said->String("answer");
    if (!text.ok()) return text.status();
    auto id = said->Id("answer_id");
    if (!id.ok()) return id.status();
    if (!annotators.insert(*id).second) {
      return said->Error(absl::StrCat("answer_id ", *id,
                                      " comes twice, expected one answer of "
                                      "each annotator"));
    }
    annotation->answers.push_back(*std::move(text));
  }
  if (annotation->answers.empty()) {
    return record.Error("\"answers\" is empty, expected what annotators said");
  }
  return absl::OkStatus();
}

}  // namespace

std::string StripVqaAnswer(absl::string_view answer) {
  return std::string(StripUnicodeSpace(
      absl::StrReplaceAll(answer, {{"\n", " "}, {"\t", " "}})));
}

std::string NormalizeVqaAnswer(absl::string_view answer) {
  return ProcessWords(ProcessPunctuation(answer));
}

double OfficialVqaAccuracy(absl::string_view answer,
                           absl::Span<const std::string> said) {
  std::string given = StripVqaAnswer(answer);
  std::vector<std::string> others;
  for (const std::string& text : said) others.push_back(StripVqaAnswer(text));
  if (std::set<std::string>(others.begin(), others.end()).size() > 1) {
    given = NormalizeVqaAnswer(given);
    for (std::string& text : others) text = NormalizeVqaAnswer(text);
  }
  const auto matches = std::count(others.begin(), others.end(), given);
  if (others.size() == 1) return matches > 0 ? 1 : 0;
  double sum = 0;
  for (const std::string& text : others) {
    sum += std::min(1.0, static_cast<double>(matches - (text == given)) / 3);
  }
  return others.empty() ? 0 : sum / static_cast<double>(others.size());
}

absl::StatusOr<VqaAnnotations> VqaAnnotations::Load(const std::string& path) {
  VqaAnnotations all;
  const absl::Status status = ForEachAnnotation(
      path, {"annotations", "answers", "VQA v2's annotations file"},
      [&](const AnnotationRecord& record) {
        auto id = record.Id("question_id");
        if (!id.ok()) return id.status();
        VqaAnnotation annotation;
        for (const auto& [key, value] :
             {std::pair<const char*, std::string*>{"question_type",
                                                   &annotation.question_type},
              {"answer_type", &annotation.answer_type}}) {
          auto text = record.String(key);
          if (!text.ok()) return text.status();
          *value = *std::move(text);
        }
        if (absl::Status s = AddAnswers(record, &annotation); !s.ok()) return s;
        if (!all.by_question_.emplace(*id, std::move(annotation)).second) {
          return record.Error(absl::StrCat("question_id ", *id,
                                           " comes twice, expected one "
                                           "annotation a question"));
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return all;
}

const VqaAnnotation* VqaAnnotations::Find(
    const std::string& question_id) const {
  const auto found = by_question_.find(question_id);
  return found == by_question_.end() ? nullptr : &found->second;
}

}  // namespace semvq
