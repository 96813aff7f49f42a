#include "data/sources/karpathy_json/karpathy_json.h"

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

using Made = absl::StatusOr<std::shared_ptr<DataSource>>;

std::string File(const std::string& images) {
  return R"({"images": [)" + images + R"(], "dataset": "coco"})";
}

std::string Image(int id, const std::string& split, const std::string& raws) {
  return R"({"filepath": "val2014", "sentids": [1], "filename": "i)" +
         std::to_string(id) + R"(.jpg", "imgid": )" + std::to_string(id) +
         R"(, "split": ")" + split + R"(", "sentences": [)" + raws +
         R"(], "cocoid": )" + std::to_string(100 + id) + "}";
}

std::string Sentence(int id, const std::string& raw) {
  return R"({"tokens": ["a"], "raw": ")" + raw +
         R"(", "imgid": 0, "sentid": )" + std::to_string(id) + "}";
}

Made Open(const std::string& content, const Strings& splits,
          const std::string& root = "") {
  KarpathyJsonConfig config;
  config.add_path(Write("dataset.json", content));
  for (const std::string& split : splits) config.add_split(split);
  if (!root.empty()) config.set_image_root(root);
  return MakeKarpathyJson(config, PluginContext());
}

TEST(KarpathyJson, CocoBySplit) {
  const std::string file = File(
      Image(0, "test", Sentence(7, "A cat.") + "," + Sentence(8, "Cats\\n")) +
      "," + Image(1, "train", Sentence(9, "b")) + "," +
      Image(2, "restval", Sentence(10, "c")));
  Made source = Open(file, {"test"});
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 1);
  const Sample sample = *(*source)->Read(0);
  EXPECT_EQ(sample.image_paths,
            Strings{testing::TempDir() + "/val2014/i0.jpg"});
  EXPECT_EQ(sample.image_id, "100");
  ASSERT_EQ(sample.texts.size(), 2u);
  EXPECT_EQ(sample.texts[0].id, "7");
  EXPECT_EQ(sample.texts[0].text, "A cat.");
  EXPECT_EQ(sample.texts[1].text, "Cats\n");
  EXPECT_NE(sample.where.find("dataset.json: image 0"), std::string::npos);
  source = Open(file, {"train", "restval"}, "/pictures");
  ASSERT_EQ((*source)->size(), 2);
  EXPECT_EQ((*source)->Read(1)->texts[0].id, "10");
  EXPECT_EQ((*source)->Read(1)->image_paths[0], "/pictures/val2014/i2.jpg");
}

TEST(KarpathyJson, FlickrHasNoFolderAndNoCocoid) {
  Made source = Open(File(R"({"sentids": [0], "imgid": 4, "split": "val",
      "filename": "1000092795.jpg", "sentences": [{"raw": "Two men.",
      "sentid": 0}]})"),
                     {"val"}, "/f");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/f/1000092795.jpg");
  EXPECT_EQ((*source)->Read(0)->image_id, "4");
}

void ExpectBad(const std::string& image, const std::string& part) {
  Made source =
      Open(File(image + "," + Image(9, "val", Sentence(1, "x"))), {"val"});
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  ExpectPart((*source)->Read(0).status(), part);
  ExpectPart((*source)->Read(0).status(), "dataset.json: image 0: ");
  EXPECT_TRUE((*source)->Read(1).ok());
}

TEST(KarpathyJson, BadImages) {
  ExpectBad("[]", "got a list, expected an object");
  ExpectBad(R"({"filename": "a"})", "the key \"split\" is missing");
  ExpectBad(R"({"split": "val"})", "the key \"filename\" is missing");
  ExpectBad(R"({"split": "val", "filename": " "})",
            "\"filename\": got an empty text");
  ExpectBad(R"({"split": "val", "filename": "a", "filepath": {}})",
            "\"filepath\": got an object");
  ExpectBad(R"({"split": "val", "filename": "a"})",
            "the key \"imgid\" is missing");
  ExpectBad(R"({"split": "val", "filename": "a", "imgid": 1})",
            "\"sentences\" is missing");
  ExpectBad(Image(1, "val", ""), "\"sentences\": got an empty list");
  ExpectBad(Image(1, "val", "3"), "\"sentences\"[0]: got a number");
  ExpectBad(Image(1, "val", Sentence(1, "a") + "," + Sentence(2, " ")),
            "\"sentences\"[1]: \"raw\": got an empty text");
  ExpectBad(Image(1, "val", R"({"tokens": ["a"]})"),
            "\"sentences\"[0]: the key \"raw\" is missing");
  ExpectBad(Image(1, "val", R"({"raw": "a", "sentid": []})"),
            "\"sentences\"[0]: \"sentid\": got a list");
  ExpectBad(Image(1, "val", Sentence(1, "\xC0")), "not UTF-8");
}

TEST(KarpathyJson, BadFiles) {
  const std::string train = Image(0, "train", Sentence(1, "a"));
  ExpectPart(Open(File(train + "," + Image(1, "val", Sentence(2, "b")) + "," +
                       Image(2, "val", Sentence(3, "b"))),
                  {"test"})
                 .status(),
             "no image is of split test; the file has train (1), val (2)");
  ExpectPart(Open(File(train + "," + train), {"train"}).status(),
             "image 1: the image 100 occurs already at image 0");
  ExpectPart(Open(File(""), {"val"}).status(), "\"images\" is empty");
  ExpectPart(Open(R"({"images": [{"id": 1, "file_name": "a"}],
                     "annotations": [{"id": 2, "caption": "b"}]})",
                  {"val"})
                 .status(),
             "looks like COCO captions (semvq.CocoCaptionsConfig)");
  ExpectPart(Open(R"([{"image": "a", "caption": "b"}])", {"val"}).status(),
             "looks like an ALBEF JSON list");
  ExpectPart(Open(File(train).substr(0, 60), {"train"}).status(), "cut off");
  KarpathyJsonConfig config;
  config.add_path("/no/such/file.json");
  EXPECT_EQ(MakeKarpathyJson(config, PluginContext()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(KarpathyJson, Validate) {
  KarpathyJsonConfig config;
  ExpectPart(ValidateKarpathyJson(config), "path: none given");
  ExpectPart(ValidateKarpathyJson(config), "split: none given");
  config.add_path("a.json");
  config.add_split("val");
  EXPECT_TRUE(ValidateKarpathyJson(config).ok());
  config.add_split("val");
  config.set_image_root("");
  ExpectPart(ValidateKarpathyJson(config), "split: val is given twice");
  ExpectPart(ValidateKarpathyJson(config), "image_root: got an empty name");
  const Contract contract =
      KarpathyJsonContract("train", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 1u);
  EXPECT_EQ(contract.files[0].path, "a.json");
  EXPECT_NE(contract.files[0].format.find("\"split\""), std::string::npos);
}

}  // namespace
}  // namespace semvq
