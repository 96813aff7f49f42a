#include "data/sources/albef_json/albef_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace semvq {
namespace {

using ::testing::HasSubstr;

std::string Write(const std::string& name, const std::string& content) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

absl::StatusOr<std::shared_ptr<DataSource>> Open(const std::string& content,
                                                 bool group = false) {
  AlbefJsonConfig config;
  config.add_path(Write("list.json", content));
  config.set_group_by_image(group);
  return MakeAlbefJson(config, PluginContext());
}

std::shared_ptr<DataSource> Must(const std::string& content,
                                 bool group = false) {
  absl::StatusOr<std::shared_ptr<DataSource>> source = Open(content, group);
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *source : nullptr;
}

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

// The only record is bad, and so named; the record after it is good.
void ExpectBadRecord(const std::string& record, const std::string& part) {
  std::shared_ptr<DataSource> source =
      Must("[" + record + R"(, {"image": "a.png", "caption": "fine"}])");
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 2);
  const absl::Status status = source->Read(0).status();
  ExpectPart(status, part);
  ExpectPart(status, "list.json: record 0: ");
  absl::StatusOr<Sample> good = source->Read(1);
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->texts[0].text, "fine");
  EXPECT_NE(good->where.find("list.json: record 1"), std::string::npos);
}

TEST(AlbefJson, KeywordsAreOneMoreCaption) {
  AlbefJsonConfig config;
  config.add_path(Write("keywords.json", R"([
    {"image": "a.png", "caption": "Red cat", "keywords": ["red CAT", "animal", "pet"]},
    {"image": "b.png", "caption": ["a dog", "a pet"], "keywords": ["A pet"]},
    {"image": "c.png", "caption": "a cow"},
    {"image": "d.png", "caption": "a hen", "keywords": "bird"},
    {"image": "e.png", "caption": "a hen", "keywords": ["bird", 3]},
    {"image": "f.png", "question": "a hen?", "keywords": ["bird"]},
    {"image": "g.png", "caption": "a hen", "keywords": []}])"));
  const auto texts = [&](int64_t i) -> std::vector<std::string> {
    auto source = MakeAlbefJson(config, PluginContext());
    EXPECT_TRUE(source.ok()) << source.status();
    absl::StatusOr<Sample> sample = (*source)->Read(i);
    if (!sample.ok()) return {std::string(sample.status().message())};
    std::vector<std::string> out;
    for (const TextRecord& text : sample->texts) out.push_back(text.text);
    return out;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(texts(0), Texts({"Red cat"}));  // Not asked for.
  config.set_keywords_key("keywords");
  EXPECT_EQ(texts(0), Texts({"Red cat", "animal, pet"}));
  EXPECT_EQ(texts(1), Texts({"a dog", "a pet"}));
  EXPECT_EQ(texts(2), Texts({"a cow"}));
  EXPECT_EQ(texts(6), Texts({"a hen"}));
  EXPECT_THAT(texts(3)[0], HasSubstr("record 3: \"keywords\": got a string, "
                                     "expected a list of strings"));
  EXPECT_THAT(texts(4)[0], HasSubstr("record 4: \"keywords\": got "));
  EXPECT_THAT(texts(5)[0], HasSubstr("record 5: got the key \"keywords\" in a "
                                     "record without \"caption\""));
}

TEST(AlbefJson, RecordsOfOneValueAreAGroupOfBatches) {
  AlbefJsonConfig config;
  config.add_path(Write("groups.json", R"([
    {"image": "a.png", "caption": "a", "kind": "x"},
    {"image": "b.png", "caption": "b"},
    {"image": "c.png", "caption": "c", "kind": 5},
    {"image": "a.png", "caption": "d", "kind": 5},
    {"image": "e.png", "caption": "e", "kind": "x"},
    {"image": "f.png", "caption": "f", "kind": []},
    {"image": "g.png", "caption": "g", "kind": 5}])"));
  EXPECT_EQ((*MakeAlbefJson(config, PluginContext()))->Parts()[0].groups,
            nullptr);
  config.set_batch_group_key("kind");
  config.set_batch_group_size(3);
  const auto groups = [&]() -> std::vector<uint32_t> {
    auto source = MakeAlbefJson(config, PluginContext());
    EXPECT_TRUE(source.ok()) << source.status();
    const std::vector<SourcePart> parts = (*source)->Parts();
    EXPECT_EQ(parts[0].group_size, 3);
    EXPECT_EQ(parts[0].groups->size(), (*source)->size());
    return *parts[0].groups;
  };
  // Those without the key and bad ones are alone.
  EXPECT_EQ(groups(), (std::vector<uint32_t>{0, 1, 2, 2, 0, 3, 2}));
  // A sample of several records is of the first one's group.
  config.set_group_by_image(true);
  EXPECT_EQ(groups(), (std::vector<uint32_t>{0, 1, 2, 0, 3, 2}));
  config.set_batch_group_key("kinds");
  EXPECT_THAT(
      std::string(MakeAlbefJson(config, PluginContext()).status().message()),
      HasSubstr("batch_group_key: no record has the key \"kinds\""));
  config.set_batch_group_size(1);
  EXPECT_THAT(std::string(ValidateAlbefJson(config).message()),
              HasSubstr("batch_group_size: got 1, expected at least 2"));
}

TEST(AlbefJson, Captions) {
  std::shared_ptr<DataSource> source = Must(R"([
    {"image": "a/b.png", "caption": "a c\u00e4t", "image_id": 7, "extra": {"x": [1, null]}},
    {"image": "c.jpg", "caption": ["one", "two"], "answer": "ignored"}])");
  ASSERT_NE(source, nullptr);
  Sample sample = *source->Read(0);
  EXPECT_EQ(sample.image_paths,
            (std::vector<std::string>{testing::TempDir() + "/a/b.png"}));
  EXPECT_EQ(sample.image_id, "7");
  ASSERT_EQ(sample.texts.size(), 1u);
  EXPECT_EQ(sample.texts[0].text, "a c\xC3\xA4t");
  sample = *source->Read(1);
  EXPECT_EQ(sample.image_paths[0], testing::TempDir() + "/c.jpg");
  EXPECT_EQ(sample.image_id, "c.jpg");
  ASSERT_EQ(sample.texts.size(), 2u);
  EXPECT_EQ(sample.texts[1].text, "two");
  EXPECT_TRUE(sample.texts[1].answers.empty());
  EXPECT_EQ(source->Read(2).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(source->Read(-1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(AlbefJson, Questions) {
  std::shared_ptr<DataSource> source = Must(R"([
    {"image": "a", "question": "q?", "question_id": 12, "answer": "yes", "dataset": "vqa"},
    {"image": "a", "question": "q?", "question_id": "x9", "answer": ["a", "b", "a", "a"]},
    {"image": "a", "question": "q?", "answers": ["a", "b"], "weights": [0.3, 1]},
    {"image": "a", "question": "q?"}])");
  ASSERT_NE(source, nullptr);
  using Answers = std::vector<std::pair<std::string, float>>;
  TextRecord text = source->Read(0)->texts[0];
  EXPECT_EQ(text.id, "12");
  EXPECT_EQ(text.answers, (Answers{{"yes", 1.0f}}));
  EXPECT_EQ(text.annotators, 1);
  text = source->Read(1)->texts[0];
  EXPECT_EQ(text.id, "x9");
  EXPECT_EQ(text.answers, (Answers{{"a", 0.75f}, {"b", 0.25f}}));
  EXPECT_EQ(text.annotators, 4);
  text = source->Read(2)->texts[0];
  EXPECT_EQ(text.answers, (Answers{{"a", 0.3f}, {"b", 1.0f}}));
  EXPECT_TRUE(source->Read(3)->texts[0].answers.empty());
}

TEST(AlbefJson, PairsOfImagesAndLabels) {
  std::shared_ptr<DataSource> source = Must(R"([
    {"images": ["l.png", "r.png"], "sentence": "s", "label": "True"},
    {"image": "p.png", "sentence": "s", "label": false},
    {"image": "p.png", "text": "left cat", "ref_id": 3}])");
  ASSERT_NE(source, nullptr);
  const Sample two = *source->Read(0);
  ASSERT_EQ(two.image_paths.size(), 2u);
  EXPECT_EQ(two.image_paths[1], testing::TempDir() + "/r.png");
  EXPECT_EQ(two.texts[0].answers[0].first, "True");
  EXPECT_EQ(source->Read(1)->texts[0].answers[0].first, "false");
  EXPECT_EQ(source->Read(2)->texts[0].id, "3");
}

TEST(AlbefJson, GroupsByImage) {
  const std::string content = R"([
    {"image": "a", "question": "a0", "answer": "1"}, {"image": "b", "question": "b0", "answer": "2"},
    {"image": "a", "question": ""}, {"image": "a", "question": "a1", "answer": "3"}])";
  std::shared_ptr<DataSource> source = Must(content, true);
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 3);
  const Sample a = *source->Read(0);
  ASSERT_EQ(a.texts.size(), 2u);
  EXPECT_EQ(a.texts[1].text, "a1");
  EXPECT_EQ(a.texts[1].answers[0].first, "3");
  EXPECT_EQ(source->Read(1)->texts[0].text, "b0");
  ExpectPart(source->Read(2).status(), "record 2");
  EXPECT_EQ(Must(content, false)->size(), 4);
}

TEST(AlbefJson, SeveralFilesAndARoot) {
  AlbefJsonConfig config;
  config.add_path(Write("one.json", R"([{"image": "a.png", "caption": "x"}])"));
  config.add_path(Write("two.json", R"([{"image": "a.png", "caption": "y"}])"));
  config.set_image_root("/pictures");
  config.set_group_by_image(true);
  absl::StatusOr<std::shared_ptr<DataSource>> source =
      MakeAlbefJson(config, PluginContext());
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_EQ((*source)->size(), 1);
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/pictures/a.png");
  EXPECT_EQ((*source)->Read(0)->texts[1].text, "y");
  config.set_group_by_image(false);
  source = MakeAlbefJson(config, PluginContext());
  EXPECT_NE((*source)->Read(1)->where.find("two.json: record 0"),
            std::string::npos);
}

TEST(AlbefJson, ImagesElsewhereAreBadRecords) {
  ExpectBadRecord(R"({"image": "../a.png", "caption": "x"})",
                  "the image ../a.png is outside of");
  ExpectBadRecord(R"({"image": "/etc/passwd", "caption": "x"})",
                  "set image_root");
  AlbefJsonConfig config;
  config.add_path(
      Write("abs.json", R"([{"image": "/data/a.png", "caption": "x"}])"));
  config.set_image_root("/");
  absl::StatusOr<std::shared_ptr<DataSource>> source =
      MakeAlbefJson(config, PluginContext());
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Read(0)->image_paths[0], "/data/a.png");
}

TEST(AlbefJson, AMissingFileSaysWhatIsWanted) {
  AlbefJsonConfig config;
  config.add_path("/no/such/list.json");
  const absl::Status status = MakeAlbefJson(config, PluginContext()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  for (const char* part :
       {"/no/such/list.json", "\"caption\"", "relative to /no/such",
        "./setup.sh", "--config=quickstart.pbtxt"}) {
    ExpectPart(status, part);
  }
}

TEST(AlbefJson, BrokenFiles) {
  ExpectPart(Open(R"({"image": "a"})").status(),
             "list.json: got an object, expected a JSON list");
  ExpectPart(Open("").status(), "got an empty file");
  ExpectPart(Open("[]").status(), "got an empty list");
  ExpectPart(Open(R"([{"image": "a.png", "caption": "fi)").status(), "cut off");
  ExpectPart(Open(R"([{"image": "a.png", "caption": "fine"},)").status(),
             "cut off");
  ExpectPart(Open("<html>").status(), "got no JSON list");
  ExpectPart(Open("[<html>]").status(), "not valid JSON");
  AlbefJsonConfig config;
  config.add_path(testing::TempDir());
  ExpectPart(MakeAlbefJson(config, PluginContext()).status(), "got a folder");
}

TEST(AlbefJson, EveryTruncationIsAnError) {
  const std::string whole =
      R"([{"image": "a.png", "caption": ["one", "two"]}, {"image": "b.png", "caption": "x"}])";
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(Open(whole.substr(0, size)).ok()) << size;
}

TEST(AlbefJson, BadRecords) {
  ExpectBadRecord(R"(17)", "got a number, expected an object");
  ExpectBadRecord(R"({"caption": "x"})", "the key \"image\" is missing");
  ExpectBadRecord(R"({"image": "a"})", "the key \"caption\"");
  ExpectBadRecord(R"({"image": 3, "caption": "x"})",
                  "\"image\": got a number, expected the path");
  ExpectBadRecord(R"({"image": "", "caption": "x"})", "\"image\": got \"\"");
  ExpectBadRecord(R"({"image": [], "caption": "x"})",
                  "\"image\": got an empty list");
  ExpectBadRecord(R"({"image": "a", "caption": null})",
                  "\"caption\": got null, expected a string or a list");
  ExpectBadRecord(R"({"image": "a", "caption": ["x", 4]})",
                  "\"caption\": got a number");
  ExpectBadRecord(R"({"image": "a", "caption": []})",
                  "\"caption\": got an empty list");
  ExpectBadRecord(R"({"image": "a", "caption": " \t"})",
                  "\"caption\": got an empty text");
  ExpectBadRecord(R"({"image": "a", "caption": "x", "image_id": 1.5})",
                  "\"image_id\": got a number");
  ExpectBadRecord(R"({"image": "a", "caption": "x", "question": "y"})",
                  "expected one of them");
  ExpectBadRecord(R"({"image": "a", "question": "x", "answer": {}})",
                  "\"answer\": got an object");
  ExpectBadRecord(
      R"({"image": "a", "question": "x", "answer": ["y"], "weights": [1, 2]})",
      "\"weights\": got 2 numbers");
  ExpectBadRecord(
      R"({"image": "a", "question": "x", "answer": "y", "weights": [-1]})",
      "\"weights\": element 0");
}

TEST(AlbefJson, InvalidUtf8IsABadRecordNotABadFile) {
  for (const char* bytes : {"\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xE2\x82",
                            "\xF5\x80\x80\x80", "\x80"}) {
    ExpectBadRecord(
        std::string("{\"image\": \"a\", \"caption\": \"x ") + bytes + " y\"}",
        "got bytes that are not UTF-8");
  }
  // Well-formed text of every length beside it stays as it is.
  const std::string good = "\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x98\x80";
  std::shared_ptr<DataSource> source = Must(
      "[{\"image\": \"a\", \"caption\": \"\xFF\"}, {\"image\": \"a\", "
      "\"caption\": \"" +
      good + "\"}]");
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->Read(1)->texts[0].text, good);
}

TEST(AlbefJson, LongCaptionsAreKept) {
  const std::string text(100000, 'a');
  std::shared_ptr<DataSource> source =
      Must(R"([{"image": "a", "caption": ")" + text + R"("}])");
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->Read(0)->texts[0].text, text);
}

TEST(AlbefJson, ContractNamesTheFiles) {
  AlbefJsonConfig config;
  config.add_path("${DATA}/a.json");
  config.add_path("b.json");
  Contract contract = AlbefJsonContract("train", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[0].field, "path");
  EXPECT_EQ(contract.files[0].path, "${DATA}/a.json");
  EXPECT_EQ(contract.files[1].path, "b.json");
  for (const NeededFile& file : contract.files) {
    EXPECT_THAT(file.format, HasSubstr("JSON list"));
    EXPECT_THAT(file.format, HasSubstr("\"caption\": \"a cat\""));
    EXPECT_THAT(file.format, HasSubstr("the folder of the list"));
  }
  config.set_image_root("/pictures");
  contract = AlbefJsonContract("train", config, ContractBook());
  EXPECT_THAT(contract.files[0].format, HasSubstr("relative to /pictures"));
}

TEST(AlbefJson, Validate) {
  AlbefJsonConfig config;
  ExpectPart(ValidateAlbefJson(config), "path: none given");
  config.add_path("a.json");
  EXPECT_TRUE(ValidateAlbefJson(config).ok());
  config.add_path("a.json");
  config.set_image_root("");
  ExpectPart(ValidateAlbefJson(config), "given twice");
  ExpectPart(ValidateAlbefJson(config), "image_root: got an empty name");
}

}  // namespace
}  // namespace semvq
