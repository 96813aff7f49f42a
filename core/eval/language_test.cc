#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/eval/caption_metrics.h"
#include "core/eval/vqa_official.h"
#include "core/text/unicode.h"
#include "core/util/file.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

// tests/golden/tasks compares with independent implementations; here is what
// can be said by hand, and what is refused.

std::string WriteTemp(const std::string& text) {
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      JoinPath(testing::TempDir(), absl::StrCat(test->name(), ".json"));
  EXPECT_TRUE(AtomicWriteFile(path, text).ok());
  return path;
}

TEST(UnicodeTest, SplitsAndLowersAsPython) {
  EXPECT_EQ(SplitUnicodeSpace(" a\xc2\xa0"
                              "b\xe3\x80\x80\xc3\x89\tc\x1c "),
            (std::vector<std::string>{"a", "b", "\xc3\x89", "c"}));
  EXPECT_EQ(StripUnicodeSpace("\xc2\x85 a b \n"), "a b");
  EXPECT_EQ(StripUnicodeSpace(" \t"), "");
  EXPECT_EQ(LowerUtf8("A\xc3\x89\xff\xc4\xb0"), "a\xc3\xa9\xffi\xcc\x87");
  EXPECT_TRUE(IsUnicodeDigit(0x663));
  EXPECT_FALSE(IsUnicodeDigit(0xbd));  // One half is no Nd.
}

TEST(VqaOfficialTest, NormalisesOddly) {
  // Beside a space a mark vanishes, elsewhere it becomes one.
  EXPECT_EQ(NormalizeVqaAnswer("black-and-white"), "black and white");
  EXPECT_EQ(NormalizeVqaAnswer("black - white-ish"), "black whiteish");
  // A comma between digits makes every mark vanish.
  EXPECT_EQ(NormalizeVqaAnswer("1,000 m/s"), "1000 ms");
  EXPECT_EQ(NormalizeVqaAnswer("3.5 p.m. no."), "3.5 pm no");
  EXPECT_EQ(NormalizeVqaAnswer("The Two dogs dont"), "2 dogs don't");
  EXPECT_EQ(NormalizeVqaAnswer("somebody'd"), "somebodyd");
  EXPECT_EQ(NormalizeVqaAnswer("Im"), "im");
  EXPECT_EQ(NormalizeVqaAnswer("an A the"), "");
  // 32 periods are deleted, whatever is left stays.
  EXPECT_EQ(NormalizeVqaAnswer(std::string(40, '.') + "x"),
            std::string(8, '.') + "x");
}

TEST(VqaOfficialTest, IsNormalisedOnlyWhereAnnotatorsDiffer) {
  const std::vector<std::string> agree(10, "the dog");
  EXPECT_EQ(OfficialVqaAccuracy("dog", agree), 0);
  EXPECT_EQ(OfficialVqaAccuracy(" the dog\n", agree), 1);
  std::vector<std::string> differ = agree;
  differ[9] = "cat";
  EXPECT_EQ(OfficialVqaAccuracy("A dog.", differ), 1);
  EXPECT_NEAR(OfficialVqaAccuracy("cat", differ), 0.3, 1e-12);
  // Three say so: each of them has two others, the other seven have three.
  std::vector<std::string> three(10, "x");
  three[0] = three[4] = three[8] = "y";
  EXPECT_NEAR(OfficialVqaAccuracy("y", three), (3 * 2.0 / 3 + 7) / 10, 1e-12);
  EXPECT_EQ(OfficialVqaAccuracy("a", {}), 0);
  EXPECT_EQ(OfficialVqaAccuracy("a", {"a"}), 1);
}

std::string Annotation(const std::string& id, const std::string& answers) {
  return absl::StrCat(R"({"question_id": )", id,
                      R"(, "question_type": "is", "answer_type": "yes/no",)",
                      R"( "image_id": 3, "answers": [)", answers, "]}");
}
const char kYes[] = R"({"answer": "yes", "answer_id": 1})";
const char kNo[] = R"({"answer": "no", "answer_id": 2})";

std::string File(const std::vector<std::string>& records) {
  std::string list;
  for (const std::string& r : records)
    absl::StrAppend(&list, list.empty() ? "" : ",", r);
  return absl::StrCat(R"({"info": {}, "annotations": [)", list, "]}");
}

TEST(VqaAnnotationsTest, ReadsTheOfficialFile) {
  const auto read = VqaAnnotations::Load(
      WriteTemp(File({Annotation("7", absl::StrCat(kYes, ",", kNo)),
                      Annotation("\"x\"", kYes)})));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->all().size(), 2u);
  ASSERT_NE(read->Find("7"), nullptr);
  EXPECT_EQ(read->Find("7")->answers, (std::vector<std::string>{"yes", "no"}));
  EXPECT_EQ(read->Find("7")->question_type, "is");
  EXPECT_EQ(read->Find("x")->answer_type, "yes/no");
  EXPECT_EQ(read->Find("8"), nullptr);
}

TEST(VqaAnnotationsTest, SaysWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{\"annotations\": [", "not valid JSON or cut off"},
      {R"({"questions": [{"question_id": 1}]})", "VQA v2's questions file"},
      {R"([{"image": "a.jpg", "question": "q", "answer": "a"}])",
       "a list of records in ALBEF's JSON format"},
      {R"([{"question_id": 1, "answer": "a"}])", "predicted"},
      {R"({"images": [{"id": 1}], "annotations": [{"caption": "c"}]})",
       "COCO's captions file"},
      {R"({"images": [{"sentences": []}]})", "Karpathy's dataset file"},
      {File({Annotation("7", kYes), Annotation("7", kYes)}),
       "annotations[1]: question_id 7 comes twice"},
      {File({Annotation("7", absl::StrCat(kYes, ",", kYes))}),
       "answers[1]: answer_id 1 comes twice"},
      {File({Annotation("7", "")}), "\"answers\" is empty"},
      {File({Annotation("7", R"({"answer": 3, "answer_id": 1})")}),
       "\"answer\": got a number, expected a string"},
      {File({Annotation("null", kYes)}), "\"question_id\": got null"},
      {File({R"({"answers": [], "question_id": 1, "answer_type": "other"})"}),
       "the key \"question_type\" is missing"},
      {File({Annotation("7", "3")}), "got a number, expected an object"},
  };
  for (const auto& [text, message] : cases) {
    const std::string path = WriteTemp(text);
    const absl::Status status = VqaAnnotations::Load(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  }
  EXPECT_TRUE(absl::IsNotFound(VqaAnnotations::Load("/nowhere").status()));
}

TEST(CaptionMetricsTest, ExtremesOfBleu) {
  const std::vector<CaptionCase> same = {{"a b c d e", {"x", "a b c d e"}}};
  for (const double bleu : CorpusBleu(same)) EXPECT_NEAR(bleu, 1, 1e-8);
  // Half of the words, and half as long as the reference: 1 * exp(1 - 2).
  const std::vector<CaptionCase> brief = {{"a b", {"a b c d"}}};
  EXPECT_NEAR(CorpusBleu(brief)[0], std::exp(-1.0), 1e-8);
  EXPECT_LT(CorpusBleu(std::vector<CaptionCase>{{"a", {"b"}}})[0], 1e-14);
  EXPECT_LT(CorpusBleu(std::vector<CaptionCase>{{"", {"b"}}})[0], 1e-14);
}

TEST(CaptionMetricsTest, CiderIsTenForTheOnlyReference) {
  const std::vector<CaptionCase> corpus = {{"a b c d", {"a b c d"}},
                                           {"x y", {"e f g h"}}};
  const CiderScores scores = Cider(corpus);
  EXPECT_NEAR(scores.each[0], 10, 1e-12);
  EXPECT_EQ(scores.each[1], 0);
  EXPECT_NEAR(scores.mean, 5, 1e-12);
  // One image: nothing is rare.
  EXPECT_EQ(Cider(std::vector<CaptionCase>{corpus[0]}).mean, 0);
}

TEST(CocoCaptionsTest, ReadsAndRefuses) {
  const auto file = [](const std::string& images, const std::string& captions) {
    return WriteTemp(absl::StrCat(R"({"images": [)", images,
                                  R"(], "annotations": [)", captions, "]}"));
  };
  const std::string one = R"({"image_id": 3, "id": 1, "caption": "A cat."})";
  const auto read = LoadCocoCaptions(file(
      R"({"id": 3})", one + R"(,{"image_id": 3, "id": 2, "caption": "b"})"));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->at("3"), (std::vector<std::string>{"A cat.", "b"}));
  for (const auto& [images, captions, message] :
       std::vector<std::array<std::string, 3>>{
           {R"({"id": 3},{"id": 3})", one, "image 3 comes twice"},
           {R"({"id": 3})", one + "," + one, "caption id 1 comes twice"},
           {R"({"id": 4})", one, "image_id 3 is not among"},
           {R"({"id": 3},{"id": 4})", one, "image 4 has no caption"},
           {R"({"id": 3})", R"({"image_id": 3, "id": 1, "caption": " "})",
            "\"caption\" is empty"},
           {R"({"id": 3})", R"({"image_id": 3, "bbox": []})",
            "COCO's instances file"}}) {
    const absl::Status status =
        LoadCocoCaptions(file(images, captions)).status();
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
  }
}

}  // namespace
}  // namespace semvq
