#include "data/sources/coco_captions/coco_captions.h"

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

std::string File(const std::string& images, const std::string& annotations) {
  return R"({"info": {}, "images": [)" + images +
         R"(], "licenses": [{"id": 1}], "annotations": [)" + annotations + "]}";
}

std::string Image(int id) {
  return R"({"license": 5, "file_name": "i)" + std::to_string(id) +
         R"(.jpg", "coco_url": "u", "height": 4, "width": 5, "id": )" +
         std::to_string(id) + "}";
}

std::string Caption(int id, int image, const std::string& text) {
  return R"({"image_id": )" + std::to_string(image) + R"(, "id": )" +
         std::to_string(id) + R"(, "caption": ")" + text + R"("})";
}

Made Open(const std::string& content, const std::string& root = "") {
  CocoCaptionsConfig config;
  config.add_path(Write("captions.json", content));
  if (!root.empty()) config.set_image_root(root);
  return MakeCocoCaptions(config, PluginContext());
}

TEST(CocoCaptions, OfficialFile) {
  Made source = Open(File(Image(7) + "," + Image(3),
                          Caption(1, 3, "B.") + "," + Caption(2, 7, "A.") +
                              "," + Caption(5, 7, "Also A.")));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  const Sample sample = *(*source)->Read(0);
  EXPECT_EQ(sample.image_paths, Strings{testing::TempDir() + "/i7.jpg"});
  EXPECT_EQ(sample.image_id, "7");
  ASSERT_EQ(sample.texts.size(), 2u);
  EXPECT_EQ(sample.texts[0].id, "2");
  EXPECT_EQ(sample.texts[0].text, "A.");
  EXPECT_EQ(sample.texts[1].text, "Also A.");
  EXPECT_NE(sample.where.find("captions.json: image 0"), std::string::npos);
  EXPECT_EQ((*source)->Read(1)->texts[0].text, "B.");
}

TEST(CocoCaptions, AnnotationsMayComeFirst) {
  Made source = Open(R"({"annotations": [)" + Caption(1, 7, "A.") +
                         R"(], "images": [)" + Image(7) + "]}",
                     "/pictures");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/pictures/i7.jpg");
}

void ExpectBad(const std::string& image, const std::string& captions,
               const std::string& part) {
  Made source =
      Open(File(image + "," + Image(9), Caption(1, 9, "x") + captions));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 2);
  ExpectPart((*source)->Read(0).status(), part);
  ExpectPart((*source)->Read(0).status(), "captions.json: image 0: ");
  EXPECT_TRUE((*source)->Read(1).ok());
}

TEST(CocoCaptions, BadImages) {
  ExpectBad("3", "", "got a number, expected an object");
  ExpectBad(R"({"file_name": "a"})", "", "the key \"id\" is missing");
  ExpectBad(R"({"id": [], "file_name": "a"})", "", "\"id\": got a list");
  ExpectBad(R"({"id": 7})", "", "the key \"file_name\" is missing");
  ExpectBad(R"({"id": 7, "file_name": ""})", "," + Caption(2, 7, "x"),
            "\"file_name\": got an empty text");
  ExpectBad(Image(7), "", "the image 7 has no caption");
  // One bad caption of several is not left out silently.
  ExpectBad(Image(7), "," + Caption(2, 7, "x") + "," + Caption(3, 7, " "),
            "annotation 2: \"caption\": got an empty text");
  ExpectBad(Image(7), R"(, {"id": 2, "image_id": 7})",
            "annotation 1: the key \"caption\" is missing");
}

TEST(CocoCaptions, BadFiles) {
  const std::string one = Caption(1, 7, "x");
  ExpectPart(Open(File(Image(7) + "," + Image(7), one)).status(),
             "image 1: the id 7 occurs already at image 0");
  ExpectPart(Open(File(Image(7), one + "," + one)).status(),
             "annotation 1: the id 1 occurs already");
  ExpectPart(Open(File(Image(7), one + "," + Caption(2, 8, "y") + "," +
                                     Caption(3, 9, "z")))
                 .status(),
             "annotation 1: the image 8 is not among \"images\" (2 such");
  ExpectPart(Open(File(Image(7), "4")).status(), "annotation 0: got a number");
  ExpectPart(
      Open(File(Image(7), R"({"image_id": 7, "caption": "a"})")).status(),
      "annotation 0: the key \"id\" is missing");
  ExpectPart(Open(File(Image(7), "{\"caption\": \"\xFF\"}")).status(),
             "annotation 0: got bytes that are not UTF-8");
  ExpectPart(Open(File("", one)).status(), "\"images\" is empty");
  ExpectPart(Open(File(Image(7), "")).status(), "\"annotations\" is empty");
  ExpectPart(Open(R"({"images": [)" + Image(7) + "]}").status(),
             "looks like a COCO image list without captions");
  ExpectPart(
      Open(R"({"annotations": [{"question_id": 1, "answers": []}]})").status(),
      "looks like VQA v2 annotations");
  ExpectPart(Open(R"({"images": [{"sentids": [1], "split": "val"}]})").status(),
             "looks like Karpathy's dataset_*.json");
  ExpectPart(
      Open(File(Image(7), R"({"id": 1, "image_id": 7, "bbox": []})")).status(),
      "looks like COCO instances");
  ExpectPart(Open(R"([{"image_id": 1, "caption": "x"}])").status(),
             "looks like a COCO caption result file");
  ExpectPart(Open(File(Image(7), one).substr(0, 90)).status(), "cut off");
  CocoCaptionsConfig config;
  config.add_path("/no/such/file.json");
  EXPECT_EQ(MakeCocoCaptions(config, PluginContext()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(CocoCaptions, Validate) {
  CocoCaptionsConfig config;
  ExpectPart(ValidateCocoCaptions(config), "path: none given");
  config.add_path("a.json");
  EXPECT_TRUE(ValidateCocoCaptions(config).ok());
  config.add_path("a.json");
  config.set_image_root("");
  ExpectPart(ValidateCocoCaptions(config), "path: a.json is given twice");
  ExpectPart(ValidateCocoCaptions(config), "image_root: got an empty name");
  const Contract contract =
      CocoCaptionsContract("train", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[0].path, "a.json");
  EXPECT_NE(contract.files[0].format.find("\"annotations\""),
            std::string::npos);
}

}  // namespace
}  // namespace semvq
