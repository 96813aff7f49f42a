#include "data/sources/nlvr2_jsonl/nlvr2_jsonl.h"

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

Made Open(const std::string& content, const std::string& root = "/p") {
  Nlvr2JsonlConfig config;
  config.add_path(Write("dev.jsonl", content));
  if (!root.empty()) config.set_image_root(root);
  return MakeNlvr2Jsonl(config, PluginContext());
}

constexpr char kFine[] =
    "{\"identifier\": \"dev-1-0-0\", \"sentence\": \"fine\", \"label\": "
    "\"True\"}\n";

TEST(Nlvr2Jsonl, OfficialLines) {
  Made source = Open(
      R"({"validation": {"4": "True"}, "sentence": "The left.", "left_url": "u", "label": "False", "synset": "x", "identifier": "dev-850-0-1", "right_url": "v", "query": "q", "extra_validations": {}, "writer": 24}
{"identifier": "dev-850-0-0", "sentence": "b", "label": "True"}
{"identifier": "train-10171-3-0", "sentence": "c", "label": true, "directory": 53}
{"identifier": "test2-0-0-0", "sentence": "d"}
)",
      "");
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 4);
  const Sample sample = *(*source)->Read(0);
  EXPECT_EQ(sample.image_paths,
            (Strings{testing::TempDir() + "/dev-850-0-img0.png",
                     testing::TempDir() + "/dev-850-0-img1.png"}));
  EXPECT_EQ(sample.image_id, "dev-850-0");
  ASSERT_EQ(sample.texts.size(), 1u);
  EXPECT_EQ(sample.texts[0].id, "dev-850-0-1");
  EXPECT_EQ(sample.texts[0].text, "The left.");
  EXPECT_EQ(sample.texts[0].answers, (Answers{{"false", 1.0f}}));
  EXPECT_NE(sample.where.find("dev.jsonl: line 1"), std::string::npos);
  EXPECT_EQ((*source)->Read(1)->texts[0].answers, (Answers{{"true", 1.0f}}));
  EXPECT_EQ((*source)->Read(2)->image_paths[1],
            testing::TempDir() + "/53/train-10171-3-img1.png");
  EXPECT_EQ((*source)->Read(2)->texts[0].answers, (Answers{{"true", 1.0f}}));
  EXPECT_TRUE((*source)->Read(3)->texts[0].answers.empty());
}

void ExpectBad(const std::string& line, const std::string& part) {
  Made source = Open(kFine + line + "\n");
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  EXPECT_TRUE((*source)->Read(0).ok());
  ExpectPart((*source)->Read(1).status(), part);
  ExpectPart((*source)->Read(1).status(), "dev.jsonl: line 2: ");
}

TEST(Nlvr2Jsonl, BadLines) {
  ExpectBad("[1]", "got a list, expected an object");
  ExpectBad("{", "not valid JSON");
  ExpectBad(R"({"sentence": "a"})", "the key \"identifier\" is missing");
  for (const char* id : {"dev-1-0", "dev-1-0-0-0", "-1-0-0", "dev-x-0-0",
                         "dev-1--0", "../dev-1-0-0", "dev-1-0-1.png", ""}) {
    ExpectBad(
        R"({"sentence": "a", "identifier": ")" + std::string(id) + R"("})",
        "expected split-set-pair-sentence");
  }
  ExpectBad(R"({"identifier": "dev-2-0-0"})",
            "the key \"sentence\" is missing");
  ExpectBad(R"({"identifier": "dev-2-0-0", "sentence": "\t"})",
            "\"sentence\": got an empty text");
  ExpectBad(R"({"identifier": "dev-2-0-0", "sentence": "a", "label": "Yes"})",
            "\"label\": got \"Yes\", expected \"True\" or \"False\"");
  ExpectBad(R"({"identifier": "dev-2-0-0", "sentence": "a", "label": null})",
            "\"label\": got null");
  for (const char* folder : {"../x", "/x"}) {
    ExpectBad(R"({"identifier": "dev-2-0-0", "sentence": "a", "directory": ")" +
                  std::string(folder) + R"("})",
              "expected a folder inside image_root");
  }
  ExpectBad("{\"identifier\": \"dev-2-0-0\", \"sentence\": \"\xFF\"}",
            "not UTF-8");
}

TEST(Nlvr2Jsonl, BadFiles) {
  ExpectPart(Open(std::string(kFine) + kFine).status(),
             "dev.jsonl: line 2: the identifier dev-1-0-0 occurs already at ");
  ExpectPart(Open("").status(), "an empty file");
  ExpectPart(Open("{\"gold_label\": \"neutral\", \"sentence2\": \"a\", "
                  "\"Flickr30K_ID\": \"1\"}\n")
                 .status(),
             "looks like SNLI-VE .jsonl (semvq.SnliVeJsonlConfig)");
  ExpectPart(Open(R"([{"images": ["a", "b"], "sentence": "c"}])").status(),
             "looks like an ALBEF JSON list (semvq.AlbefJsonConfig)");
  ExpectPart(Open(std::string(kFine) + "{\"identifier\": \"dev-2").status(),
             "cut off");
  Nlvr2JsonlConfig config;
  config.add_path("/no/such/file.jsonl");
  EXPECT_EQ(MakeNlvr2Jsonl(config, PluginContext()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Nlvr2Jsonl, Validate) {
  Nlvr2JsonlConfig config;
  ExpectPart(ValidateNlvr2Jsonl(config), "path: none given");
  config.add_path("a.jsonl");
  EXPECT_TRUE(ValidateNlvr2Jsonl(config).ok());
  config.add_path("a.jsonl");
  config.set_image_root("");
  ExpectPart(ValidateNlvr2Jsonl(config), "path: a.jsonl is given twice");
  ExpectPart(ValidateNlvr2Jsonl(config), "image_root: got an empty name");
  const Contract contract = Nlvr2JsonlContract("dev", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[0].path, "a.jsonl");
  EXPECT_NE(contract.files[0].format.find("\"identifier\""), std::string::npos);
}

}  // namespace
}  // namespace semvq
