#include "data/sources/vqa_v2/vqa_v2.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "core/plugin/contract.h"

namespace semvq {
namespace {

using Strings = std::vector<std::string>;

std::string Write(const std::string& name, const std::string& content) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

using Answers = std::vector<std::pair<std::string, float>>;
using Made = absl::StatusOr<std::shared_ptr<DataSource>>;

// The official layout of both files.
std::string Questions(const std::string& records,
                      const std::string& subtype = "val2014") {
  return R"({"info": {"year": 2017, "contributor": "x"}, "task_type": "Open-Ended",
    "data_type": "mscoco", "license": {"url": "u", "name": "n"},
    "data_subtype": ")" +
         subtype + R"(", "questions": [)" + records + "]}";
}

std::string Annotations(const std::string& records) {
  return R"({"info": {}, "license": {}, "data_subtype": "val2014",
    "annotations": [)" +
         records + R"(], "data_type": "mscoco"})";
}

std::string Question(int id, int image,
                     const std::string& text = "what is it?") {
  return R"({"image_id": )" + std::to_string(image) + R"(, "question": ")" +
         text + R"(", "question_id": )" + std::to_string(id) + "}";
}

std::string Annotation(int id, int image, const Strings& answers) {
  std::string list;
  for (size_t i = 0; i < answers.size(); ++i) {
    list += (i ? ", " : "") + (R"({"answer": ")" + answers[i]) +
            R"(", "answer_confidence": "yes", "answer_id": )" +
            std::to_string(i + 1) + "}";
  }
  return R"({"question_type": "what is", "multiple_choice_answer": "net",
    "answers": [)" +
         list + R"(], "image_id": )" + std::to_string(image) +
         R"(, "answer_type": "other", "question_id": )" + std::to_string(id) +
         "}";
}

Made Open(const std::string& questions, const std::string& annotations,
          VqaV2Config config = {}) {
  config.add_questions(Write("questions.json", questions));
  if (!annotations.empty()) {
    config.add_annotations(Write("annotations.json", annotations));
  }
  return MakeVqaV2(config, PluginContext());
}

TEST(VqaV2, OfficialFiles) {
  Made source =
      Open(Questions(Question(42000, 42) + "," + Question(42001, 42, "Is it?")),
           Annotations(Annotation(42001, 42, Strings(10, "yes")) + "," +
                       Annotation(42000, 42,
                                  {"net", "ball", "net", "net", "ball", "net",
                                   "net", "net", "goal", "net"})));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  const Sample sample = *(*source)->Read(0);
  EXPECT_EQ(
      sample.image_paths,
      Strings{testing::TempDir() + "/val2014/COCO_val2014_000000000042.jpg"});
  EXPECT_EQ(sample.image_id, "42");
  ASSERT_EQ(sample.texts.size(), 1u);
  EXPECT_EQ(sample.texts[0].id, "42000");
  EXPECT_EQ(sample.texts[0].text, "what is it?");
  EXPECT_EQ(sample.texts[0].annotators, 10);
  ASSERT_EQ(sample.texts[0].answers.size(), 3u);
  const Answers expected = {{"net", 0.7f}, {"ball", 0.2f}, {"goal", 0.1f}};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(sample.texts[0].answers[i].first, expected[i].first);
    EXPECT_FLOAT_EQ(sample.texts[0].answers[i].second, expected[i].second);
  }
  EXPECT_NE(sample.where.find("questions.json: question 0"), std::string::npos);
  EXPECT_EQ((*source)->Read(1)->texts[0].answers, (Answers{{"yes", 1.0f}}));
}

TEST(VqaV2, ATestSplitHasNoAnnotations) {
  Made source = Open(Questions(Question(7, 262144), "test-dev2015"), "");
  ASSERT_TRUE(source.ok()) << source.status();
  const Sample sample = *(*source)->Read(0);
  EXPECT_TRUE(sample.texts[0].answers.empty());
  EXPECT_EQ(sample.image_paths[0],
            testing::TempDir() + "/test2015/COCO_test2015_000000262144.jpg");
}

TEST(VqaV2, PatternsAndRoots) {
  VqaV2Config config;
  config.set_image_root("/pictures");
  config.add_image_pattern("a/{image_id}.png");
  config.add_image_pattern("b/{image_id:04}.png");
  config.add_questions(Write("first.json", Questions(Question(1, 17), "")));
  const std::string second = Questions(Question(2, 18));
  Made source = Open(second, "", config);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/pictures/a/17.png");
  EXPECT_EQ((*source)->Read(1)->image_paths[0], "/pictures/b/0018.png");
  config.mutable_image_pattern()->DeleteSubrange(1, 1);
  source = Open(second, "", config);
  EXPECT_EQ((*source)->Read(1)->image_paths[0], "/pictures/a/18.png");
  // Nothing names the folder of the first file's images.
  config.clear_image_pattern();
  ExpectPart(Open(second, "", config).status(), "names no \"data_subtype\"");
}

TEST(VqaV2, GroupsByImage) {
  VqaV2Config config;
  config.set_group_by_image(true);
  Made source =
      Open(Questions(Question(1, 5) + "," + Question(2, 6) + "," +
                     Question(3, 5, "and now?") + "," + Question(4, 5, " ")),
           "", config);
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 3);
  ASSERT_EQ((*source)->Read(0)->texts.size(), 2u);
  EXPECT_EQ((*source)->Read(0)->texts[1].id, "3");
  ExpectPart((*source)->Read(2).status(), "got an empty text");
}

// One question is bad, and so named; the other is good.
void ExpectBad(const std::string& question, const std::string& annotation,
               const std::string& part) {
  Made source =
      Open(Questions(question + "," + Question(9, 9)),
           annotation.empty()
               ? ""
               : Annotations(annotation + "," + Annotation(9, 9, {"fine"})));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  ExpectPart((*source)->Read(0).status(), part);
  ExpectPart((*source)->Read(0).status(), "questions.json: question 0: ");
  EXPECT_TRUE((*source)->Read(1).ok());
}

TEST(VqaV2, BadQuestions) {
  ExpectBad("17", "", "got a number, expected an object");
  ExpectBad(R"({"image_id": 1, "question": "x"})", "",
            "the key \"question_id\" is missing");
  ExpectBad(R"({"image_id": 1, "question_id": null, "question": "x"})", "",
            "\"question_id\": got null");
  ExpectBad(R"({"question_id": 1, "question": "x"})", "",
            "the key \"image_id\" is missing");
  ExpectBad(R"({"image_id": 1.5, "question_id": 1, "question": "x"})", "",
            "\"image_id\": got a number, expected a string or an integer");
  ExpectBad(R"({"image_id": 1, "question_id": 1})", "",
            "the key \"question\" is missing");
  ExpectBad(Question(1, 1, " \\t"), "", "\"question\": got an empty text");
  ExpectBad(R"({"image_id": 1, "question_id": 1, "question": []})", "",
            "\"question\": got a list");
  ExpectBad("{\"image_id\": 1, \"question_id\": 1, \"question\": \"\xFF\"}", "",
            "not UTF-8");
  ExpectBad(R"({"image_id": "../x", "question_id": 1, "question": "x"})", "",
            "expected a part of a file name");
  ExpectBad(R"({"image_id": 1234567890123, "question_id": 1, "question": "x"})",
            "", "expected at most 12 digits");
}

TEST(VqaV2, BadAnnotationsAreBadQuestions) {
  const std::string question = Question(1, 5);
  ExpectBad(question, Annotation(1, 5, {}), "got an empty list");
  ExpectBad(question, Annotation(1, 6, {"a"}), "\"image_id\": got 5, but ");
  ExpectBad(question, R"({"question_id": 1, "image_id": 5})",
            "\"answers\" is missing");
  ExpectBad(question, R"({"question_id": 1, "answers": ["a"]})",
            "\"answers\"[0]: got a string");
  ExpectBad(question, R"({"question_id": 1, "answers": [{"answer": {}}]})",
            "\"answers\"[0]: \"answer\": got an object");
  // A question without an annotation, when others have one.
  Made source = Open(Questions(question + "," + Question(9, 9)),
                     Annotations(Annotation(9, 9, {"fine"})));
  ASSERT_TRUE(source.ok()) << source.status();
  ExpectPart((*source)->Read(0).status(), "question_id 1 has no annotation");
}

TEST(VqaV2, FilesThatDoNotFitTogether) {
  const std::string two = Question(1, 5) + "," + Question(2, 5);
  ExpectPart(Open(Questions(two + "," + Question(1, 6)), "").status(),
             "questions.json: question 2: question_id 1 occurs already at");
  const absl::Status lost =
      Open(Questions(two),
           Annotations(Annotation(1, 5, {"a"}) + "," + Annotation(8, 5, {"b"}) +
                       "," + Annotation(9, 5, {"b"})))
          .status();
  ExpectPart(lost,
             "annotations.json: annotation 1: question_id 8 is no "
             "question of ");
  ExpectPart(lost, "2 annotations have no question");
  ExpectPart(Open(Questions(two), Annotations(Annotation(1, 5, {"a"}) + "," +
                                              Annotation(1, 5, {"b"})))
                 .status(),
             "question_id 1 has an annotation already, at ");
  ExpectPart(
      Open(Questions(two), Annotations(Annotation(8, 5, {"a"}))).status(),
      "none of its 2 questions has an annotation");
  ExpectPart(Open(Questions(two), Annotations(Annotation(1, 5, {}))).status(),
             "none of its 1 records can be used");
  ExpectPart(Open(Questions(two), Annotations("")).status(),
             "leave the field annotations out for a test split");
  ExpectPart(Open(Questions(two), Annotations("3")).status(),
             "annotation 0: got a number");
}

TEST(VqaV2, OtherFormatsAreNamed) {
  const std::string good = Questions(Question(1, 5));
  const std::string answers = Annotations(Annotation(1, 5, {"a"}));
  ExpectPart(Open(answers, "").status(),
             "looks like VQA v2 annotations (semvq.VqaV2Config, field "
             "annotations)");
  ExpectPart(
      Open(good, good).status(),
      "looks like VQA v2 questions (semvq.VqaV2Config, field questions)");
  ExpectPart(Open(good, R"({"images": [], "annotations": [{"caption": "x"}]})")
                 .status(),
             "looks like COCO captions");
  ExpectPart(Open(R"([{"image": "a", "question": "b"}])", "").status(),
             "got a list, expected VQA v2 questions");
  ExpectPart(Open(R"([{"question_id": 1, "answer": "b"}])", "").status(),
             "looks like a VQA result file");
  ExpectPart(Open(Questions(""), "").status(), "\"questions\" is empty");
  ExpectPart(Open(Questions("{}, {}"), "").status(),
             "none of its 2 records can be used; the first: the key "
             "\"question_id\" is missing");
  ExpectPart(Open(good.substr(0, good.size() - 3), "").status(), "cut off");
  VqaV2Config config;
  config.add_questions("/no/such/file.json");
  config.add_image_pattern("{image_id}");
  EXPECT_EQ(MakeVqaV2(config, PluginContext()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(VqaV2, Validate) {
  VqaV2Config config;
  ExpectPart(ValidateVqaV2(config), "questions: none given; expected VQA v2");
  config.add_questions("a.json");
  EXPECT_TRUE(ValidateVqaV2(config).ok());
  config.add_questions("a.json");
  config.add_annotations("");
  config.set_image_root("");
  for (const char* pattern : {"x.jpg", "{image_id:12}", "{image_id}"}) {
    config.add_image_pattern(pattern);
  }
  const absl::Status status = ValidateVqaV2(config);
  ExpectPart(status, "questions: a.json is given twice");
  ExpectPart(status, "annotations: got an empty name");
  ExpectPart(status, "image_root: got an empty name");
  ExpectPart(status,
             "image_pattern: got 3, expected one for all or one for "
             "each of the 2 questions files");
  ExpectPart(status, "image_pattern: got \"x.jpg\": it has no {image_id}");
  ExpectPart(status, "\":12\" is no width");
}

TEST(VqaV2, ContractNamesTheFiles) {
  VqaV2Config config;
  config.add_questions("${DATA}/q.json");
  config.add_annotations("a.json");
  const Contract contract = VqaV2Contract("train", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[0].field, "questions");
  EXPECT_EQ(contract.files[0].path, "${DATA}/q.json");
  EXPECT_EQ(contract.files[1].field, "annotations");
  EXPECT_NE(contract.files[1].format.find("\"answers\""), std::string::npos);
}

}  // namespace
}  // namespace semvq
