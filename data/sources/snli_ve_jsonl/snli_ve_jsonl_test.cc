#include "data/sources/snli_ve_jsonl/snli_ve_jsonl.h"

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

Made Open(const std::string& content, SnliVeJsonlConfig config = {}) {
  config.add_path(Write("ve.jsonl", content));
  return MakeSnliVeJsonl(config, PluginContext());
}

constexpr char kFine[] =
    "{\"Flickr30K_ID\": \"1\", \"sentence2\": \"fine\", \"gold_label\": "
    "\"neutral\", \"pairID\": \"1.jpg#0r1n\"}\n";

TEST(SnliVeJsonl, OfficialLines) {
  Made source = Open(
      R"({"annotator_labels": ["neutral", "entailment"], "captionID": "3416050480.jpg#4", "gold_label": "neutral", "pairID": "3416050480.jpg#4r1n", "sentence1": "A person.", "sentence1_parse": "ROOT", "sentence2": "A person is training.", "Flickr30K_ID": "3416050480"}
{"Flickr30K_ID": 17, "sentence2": "b", "gold_label": "entailment"}
{"Flikr30kID": "18.jpg", "sentence2": "c", "gold_label": "contradiction"}
{"Flickr30K_ID": "19", "sentence2": "d"}
)");
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 4);
  const Sample sample = *(*source)->Read(0);
  EXPECT_EQ(sample.image_paths,
            Strings{testing::TempDir() + "/3416050480.jpg"});
  EXPECT_EQ(sample.image_id, "3416050480");
  ASSERT_EQ(sample.texts.size(), 1u);
  EXPECT_EQ(sample.texts[0].id, "3416050480.jpg#4r1n");
  EXPECT_EQ(sample.texts[0].text, "A person is training.");
  EXPECT_EQ(sample.texts[0].answers, (Answers{{"neutral", 1.0f}}));
  EXPECT_NE(sample.where.find("ve.jsonl: line 1"), std::string::npos);
  EXPECT_EQ((*source)->Read(1)->image_id, "17");
  EXPECT_EQ((*source)->Read(1)->texts[0].id, "");
  EXPECT_EQ((*source)->Read(2)->image_paths[0], testing::TempDir() + "/18.jpg");
  EXPECT_EQ((*source)->Read(2)->texts[0].answers,
            (Answers{{"contradiction", 1.0f}}));
  EXPECT_TRUE((*source)->Read(3)->texts[0].answers.empty());
}

TEST(SnliVeJsonl, PatternAndRoot) {
  SnliVeJsonlConfig config;
  config.set_image_root("/pictures");
  config.set_image_pattern("emoji/{id:04}.png");
  Made source = Open(kFine, config);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/pictures/emoji/0001.png");
}

void ExpectBad(const std::string& line, const std::string& part) {
  Made source = Open(kFine + line + "\n");
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  EXPECT_TRUE((*source)->Read(0).ok());
  ExpectPart((*source)->Read(1).status(), part);
  ExpectPart((*source)->Read(1).status(), "ve.jsonl: line 2: ");
}

TEST(SnliVeJsonl, BadLines) {
  ExpectBad("3", "got a number, expected an object");
  ExpectBad("{]", "not valid JSON");
  ExpectBad(R"({"sentence2": "a", "gold_label": "neutral"})",
            "the key \"Flickr30K_ID\" is missing");
  ExpectBad(R"({"Flickr30K_ID": "../1", "sentence2": "a"})",
            "expected a part of a file name");
  ExpectBad(R"({"Flickr30K_ID": "2"})", "the key \"sentence2\" is missing");
  ExpectBad(R"({"Flickr30K_ID": "2", "sentence2": " "})",
            "\"sentence2\": got an empty text");
  ExpectBad(R"({"Flickr30K_ID": "2", "sentence2": "a", "gold_label": "-"})",
            "the annotators did not agree");
  ExpectBad(R"({"Flickr30K_ID": "2", "sentence2": "a", "gold_label": "maybe"})",
            "\"gold_label\": got \"maybe\", expected entailment, neutral, "
            "contradiction");
  ExpectBad(R"({"Flickr30K_ID": "2", "sentence2": "a", "gold_label": true})",
            "\"gold_label\": got true or false");
  ExpectBad(R"({"Flickr30K_ID": "2", "sentence2": "a", "pairID": {}})",
            "\"pairID\": got an object");
  ExpectBad(
      R"({"Flickr30K_ID": "2", "sentence2": "a", "pairID": "1.jpg#0r1n"})",
      "the pairID 1.jpg#0r1n occurs already at ");
}

TEST(SnliVeJsonl, BadFiles) {
  ExpectPart(Open("").status(), "an empty file");
  ExpectPart(
      Open("{\"identifier\": \"dev-1-0-0\", \"sentence\": \"a\"}\n").status(),
      "looks like NLVR2 .jsonl (semvq.Nlvr2JsonlConfig)");
  ExpectPart(
      Open("{\"gold_label\": \"neutral\", \"sentence2\": \"a\"}\n").status(),
      "looks like SNLI .jsonl, which has no images");
  ExpectPart(
      Open(R"([{"image": "a", "sentence": "c", "label": "neutral"}])").status(),
      "looks like an ALBEF JSON list");
  ExpectPart(Open(std::string(kFine) + "{\"Flickr30K").status(), "cut off");
  SnliVeJsonlConfig config;
  config.add_path("/no/such/file.jsonl");
  EXPECT_EQ(MakeSnliVeJsonl(config, PluginContext()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(SnliVeJsonl, Validate) {
  SnliVeJsonlConfig config;
  ExpectPart(ValidateSnliVeJsonl(config), "path: none given");
  config.add_path("a.jsonl");
  EXPECT_TRUE(ValidateSnliVeJsonl(config).ok());
  config.add_path("a.jsonl");
  config.set_image_root("");
  config.set_image_pattern("{image_id}.jpg");
  ExpectPart(ValidateSnliVeJsonl(config), "path: a.jsonl is given twice");
  ExpectPart(ValidateSnliVeJsonl(config), "image_root: got an empty name");
  ExpectPart(ValidateSnliVeJsonl(config), "{image_id} is none of {id}");
  const Contract contract = SnliVeJsonlContract("dev", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[0].path, "a.jsonl");
  EXPECT_NE(contract.files[0].format.find("\"sentence2\""), std::string::npos);
}

}  // namespace
}  // namespace semvq
