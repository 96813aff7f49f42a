// Reading annotation files, naming images, and the table of samples.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/image_pattern.h"
#include "data/json_records.h"
#include "data/sample_table.h"

namespace semvq {
namespace {

std::string Write(const std::string& content) {
  const std::string path = testing::TempDir() + "/annotations";
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

JsonFileFormat Lists(std::vector<std::string> lists) {
  return {JsonFileFormat::kLists, std::move(lists), "WANTED", "Config.path"};
}

JsonFileFormat Lines() {
  return {JsonFileFormat::kLines, {}, "WANTED", "Config.path"};
}

// All records as "list/number:json", or the error.
absl::Status Collect(const std::string& content, const JsonFileFormat& format,
                     std::vector<std::string>* out) {
  return ReadJsonRecords(
      Write(content), format, [&](const JsonRecord& record) -> absl::Status {
        out->push_back(absl::StrCat(
            record.list, "/", record.number, ":",
            record.error.ok() ? std::string(simdjson::minify(record.value))
                              : "bad"));
        return absl::OkStatus();
      });
}

absl::Status Error(const std::string& content, const JsonFileFormat& format) {
  std::vector<std::string> records;
  return Collect(content, format, &records);
}

TEST(JsonRecords, ReadsOneList) {
  const JsonFileFormat list = {JsonFileFormat::kList, {}, "WANTED", "C.path"};
  std::vector<std::string> got;
  ASSERT_TRUE(
      Collect("\n [ {\"a\": \"]\\\"\\\\\"}, 2,\"x\" , [[]]]\n", list, &got)
          .ok());
  EXPECT_EQ(got, (std::vector<std::string>{"0/0:{\"a\":\"]\\\"\\\\\"}", "0/1:2",
                                           "0/2:\"x\"", "0/3:[[]]"}));
  ExpectPart(Error("", list), "got an empty file, expected WANTED");
  ExpectPart(Error("[]", list), "got an empty list, expected WANTED");
  ExpectPart(Error("{}", list), "got an object, expected WANTED");
  ExpectPart(Error("[1] 2", list), "more than one JSON value");
  ExpectPart(Error("[1", list), "cut off");
  ExpectPart(Error("[1,]", list), "cut off");
  ExpectPart(Error("[nul]", list), "not valid JSON");
}

// A quote or bracket that is missing makes the rest of a file one record.
TEST(JsonRecords, RecordsAreBounded) {
  const JsonFileFormat list = {JsonFileFormat::kList, {}, "WANTED", "C.path"};
  const std::string long_text(kMaxRecordBytes + 100, 'x');
  ExpectPart(Error("[{\"a\": 1}, \"" + long_text + "\"]", list),
             "record 1, which begins at byte 10, is longer than 16777216");
  std::string deep = "[";
  while (deep.size() < kMaxRecordBytes + 100) deep += "{\"a\":[1,2],";
  ExpectPart(Error(deep, list), "record 0");
  ExpectPart(Error("{}\n{\"a\": \"" + long_text + "\"}\n", Lines()),
             "line 2, which begins at byte 3");
  ExpectPart(Error("{\"l\": [\"" + long_text + "\"]}", Lists({"l"})),
             "record 0");
}

TEST(JsonRecords, ReadsListsInAnyOrderAndSkipsTheRest) {
  std::vector<std::string> got;
  const absl::Status status = Collect(
      "\n { \"info\": {\"a\": [1, \"]}\", {}], \"b\": \"\\\\\\\"]\"}, "
      "\"b\" : [ {\"x\":[ {} ]} , 3, \"a,]\" ],\"n\":null, \"a\":[]} \n",
      Lists({"a", "b"}), &got);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(got, (std::vector<std::string>{"1/0:{\"x\":[{}]}", "1/1:3",
                                           "1/2:\"a,]\""}));
}

TEST(JsonRecords, EveryTruncationIsAnError) {
  const std::string whole =
      R"({"a": [{"x": "\u00e4 \" ]"}, 17], "b": {"c": [2]}, "d": true})";
  std::vector<std::string> got;
  ASSERT_TRUE(Collect(whole, Lists({"a"}), &got).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(Error(whole.substr(0, size), Lists({"a"})).ok()) << size;
  }
  ExpectPart(Error(whole + "{}", Lists({"a"})), "more than one JSON value");
}

// The reader's buffer ends inside records, strings and escapes.
TEST(JsonRecords, RecordsAcrossTheBufferAreWhole) {
  std::string content = "{\"a\": [";
  std::vector<std::string> expected;
  for (int i = 0; content.size() < 1200000; ++i) {
    const std::string record = absl::StrCat(
        "{\"k\":\"", std::string(i % 701, 'x'), "\\\\\\\"]", i, "\"}");
    absl::StrAppend(&content, i == 0 ? "" : ",", record);
    expected.push_back(absl::StrCat("0/", i, ":", record));
  }
  std::vector<std::string> got;
  ASSERT_TRUE(Collect(content + "]}", Lists({"a"}), &got).ok());
  EXPECT_EQ(got, expected);
}

TEST(JsonRecords, ABadByteIsABadRecordOnly) {
  std::vector<std::string> got;
  ASSERT_TRUE(
      Collect("{\"a\": [\"\xFF\", \"fine\"]}", Lists({"a"}), &got).ok());
  EXPECT_EQ(got, (std::vector<std::string>{"0/0:bad", "0/1:\"fine\""}));
  ExpectPart(Error("{\"a\": [tru, 1]}", Lists({"a"})), "in record 0");
}

TEST(JsonRecords, Lines) {
  std::vector<std::string> got;
  ASSERT_TRUE(
      Collect("{\"a\":1}\r\n\n{\"a\":\xFF}\n{\"a\":}\n{\"a\":4}", Lines(), &got)
          .ok());
  EXPECT_EQ(got, (std::vector<std::string>{"0/1:{\"a\":1}", "0/3:bad",
                                           "0/4:bad", "0/5:{\"a\":4}"}));
  ExpectPart(Error("", Lines()), "an empty file");
  ExpectPart(Error("\n \n", Lines()), "an empty file");
  ExpectPart(Error("{\"a\":1}\n{\"a\":2", Lines()), "cut off at byte 14");
  ExpectPart(Error("{\"a\":\n1}\n", Lines()), "a first line that is no JSON");
  ExpectPart(Error("[1]\n[2]\n", Lines()), "a list in the first line");
}

TEST(JsonRecords, FilesThatCannotBeRead) {
  const auto none = [](const JsonRecord&) { return absl::OkStatus(); };
  const absl::Status missing =
      ReadJsonRecords("/no/such/file", Lists({"a"}), none);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  ExpectPart(missing, "/no/such/file does not exist");
  ExpectPart(missing, "WANTED (Config.path)");
  ExpectPart(ReadJsonRecords(testing::TempDir(), Lists({"a"}), none),
             "got a folder");
  // Nobody writes to it.
  const std::string pipe = testing::TempDir() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ExpectPart(ReadJsonRecords(pipe, Lists({"a"}), none), "got a special file");
  ASSERT_EQ(unlink(pipe.c_str()), 0);
  ExpectPart(Error("", Lists({"a"})), "an empty file");
  ExpectPart(Error("{}", Lists({"a"})), "no list \"a\"");
  ExpectPart(Error("{\"a\": {}}", Lists({"a"})), "no list at \"a\"");
  ExpectPart(Error("[1]", Lists({"a"})), "got a list");
  ExpectPart(Error("{\"a\": [1 2]}", Lists({"a"})), "not valid JSON");
}

TEST(JsonRecords, TheVisitorsErrorStops) {
  int seen = 0;
  const absl::Status status = ReadJsonRecords(
      Write("{\"a\": [1, 2, 3]}"), Lists({"a"}), [&](const JsonRecord&) {
        return ++seen == 2 ? absl::AbortedError("enough") : absl::OkStatus();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(seen, 2);
}

TEST(JsonRecords, GuessesTheFormat) {
  const auto expect = [](const std::string& content, const std::string& part) {
    const std::string guess = GuessFormat(Write(content));
    EXPECT_TRUE(part.empty() ? guess.empty() : absl::StrContains(guess, part))
        << content << "\nlooks like: " << guess;
  };
  expect(R"({"info": {}, "questions": [{"question_id": 1}]})",
         "VQA v2 questions (semvq.VqaV2Config, field questions)");
  expect(R"({"annotations": [{"question_id": 1, "answers": []}]})",
         "VQA v2 annotations");
  expect(R"({"annotations": [{"caption": "a"}], "images": []})",
         "COCO captions (semvq.CocoCaptionsConfig)");
  expect(R"({"images": [{"id": 1}], "annotations": [{"bbox": []}]})",
         "COCO instances");
  expect(R"({"images": [{"id": 1}], "categories": []})",
         "without captions (a test split?)");
  expect(R"({"images": [{"sentids": [1], "split": "val"}], "dataset": "coco"})",
         "(semvq.KarpathyJsonConfig)");
  // Cut off, it still shows what it was.
  expect(R"({"images": [{"sentids": [1], "split": "val"}, {"sen)",
         "(semvq.KarpathyJsonConfig)");
  expect(R"([{"image": "a", "caption": "b"}])", "semvq.AlbefJsonConfig");
  expect(R"([{"question_id": 1, "answer": "b"}])", "a VQA result file");
  expect(R"([{"image_id": 1, "caption": "b"}])", "a COCO caption result file");
  expect(R"([{"ref_id": 1, "box": []}])", "grounding boxes");
  expect("{\"identifier\": \"dev-0-0-0\", \"sentence\": \"a\"}\n",
         "NLVR2 .jsonl (semvq.Nlvr2JsonlConfig)");
  expect(R"([{"identifier": "dev-0-0-0", "sentence": "a"}])",
         "but as one JSON list");
  expect("{\"gold_label\": \"-\", \"Flikr30kID\": \"1.jpg\"}\n",
         "SNLI-VE .jsonl (semvq.SnliVeJsonlConfig)");
  expect("{\"gold_label\": \"-\", \"sentence2\": \"a\"}\n", "no images");
  expect("{\"image\": \"a\", \"caption\": \"b\"}\n{\"image\"",
         "but one record a line");
  expect("PK\x03\x04zip", "a zip archive");
  expect("\x1f\x8bgzip", "a gzip file");
  expect("\n<!DOCTYPE html>", "a web page");
  expect("\x89PNG", "a picture");
  expect("version https://git-lfs.github.com/spec/v1", "a Git LFS pointer");
  expect("a,b,c\n", "");
  expect("{}", "");
  expect("[]", "");
  EXPECT_EQ(GuessFormat("/no/such/file"), "");
}

TEST(JsonRecords, TopLevelStrings) {
  const std::string path =
      Write(R"({"q": [{"data_subtype": "no"}], "data_subtype": "val2014", "x)");
  EXPECT_EQ(*ReadTopLevelString(path, "data_subtype"), "val2014");
  EXPECT_EQ(*ReadTopLevelString(path, "other"), "");
  EXPECT_EQ(*ReadTopLevelString(path, "q"), "");
  EXPECT_EQ(*ReadTopLevelString(Write("[1]"), "q"), "");
}

TEST(ImagePattern, Fills) {
  const auto fill = [](const std::string& pattern, const std::string& id) {
    auto parsed = ImagePattern::Parse(pattern, {"id", "split"});
    return parsed.ok() ? parsed->Fill({{"id", id}, {"split", "val2014"}})
                       : absl::StatusOr<std::string>(parsed.status());
  };
  EXPECT_EQ(*fill("{split}/COCO_{split}_{id:012}.jpg", "42"),
            "val2014/COCO_val2014_000000000042.jpg");
  EXPECT_EQ(*fill("{id}", "a"), "a");
  EXPECT_EQ(*fill("{id:02}{id}x", "7"), "077x");
  EXPECT_EQ(*fill("{id:03}", "123"), "123");
  ExpectPart(fill("{id:02}", "123").status(), "expected at most 2 digits");
  for (const char* hostile : {"", "../etc", "/etc"}) {
    ExpectPart(fill("{id}", hostile).status(), "a part of a file name");
  }
  ExpectPart(fill("a.jpg", "1").status(), "it has no {id}");
  ExpectPart(fill("{split}", "1").status(), "it has no {id}");
  ExpectPart(fill("{id", "1").status(), "a { without its }");
  ExpectPart(fill("id}", "1").status(), "a } without its {");
  ExpectPart(fill("{it}", "1").status(), "{it} is none of {id}, {split}");
  for (const char* width :
       {"{id:12}", "{id:}", "{id:0}", "{id:0x}", "{id:0999999999999}"}) {
    ExpectPart(fill(width, "1").status(), "is no width such as :012");
  }
}

SampleTable::Record MakeRecord(int file, int64_t number,
                               const std::string& image,
                               const std::string& text) {
  SampleTable::Record record;
  record.file = file;
  record.number = number;
  record.images = {image};
  record.texts.resize(1);
  record.texts[0].id = absl::StrCat("t", number);
  record.texts[0].text = text;
  record.texts[0].answers = {{"yes", 0.75f}, {"no", 0.25f}};
  record.texts[0].annotators = 4;
  return record;
}

TEST(SampleTable, KeepsEverything) {
  SampleTable table("line");
  const int file = table.AddFile("/data/a.jsonl", "");
  const int rooted = table.AddFile("b.jsonl", "/pictures");
  SampleTable::Record record = MakeRecord(file, 7, "x/1.png", "words");
  record.images.push_back("/data/abs/2.png");
  table.Add(record);
  record = MakeRecord(rooted, 1, "3.png", "other");
  record.image_id = "three";
  table.Add(record);
  table.AddBad(rooted, 2, absl::InvalidArgumentError("no good"));
  ASSERT_TRUE(table.Finish().ok());
  ASSERT_EQ(table.size(), 3);
  EXPECT_EQ(table.records(), 3);
  EXPECT_EQ(table.bad(), 1);
  const Sample first = *table.Read(0);
  EXPECT_EQ(first.where, "/data/a.jsonl: line 7");
  EXPECT_EQ(first.image_id, "x/1.png /data/abs/2.png");
  EXPECT_EQ(first.image_paths,
            (std::vector<std::string>{"/data/x/1.png", "/data/abs/2.png"}));
  ASSERT_EQ(first.texts.size(), 1u);
  EXPECT_EQ(first.texts[0].id, "t7");
  EXPECT_EQ(first.texts[0].text, "words");
  EXPECT_EQ(first.texts[0].annotators, 4);
  EXPECT_EQ(first.texts[0].answers, (std::vector<std::pair<std::string, float>>{
                                        {"yes", 0.75f}, {"no", 0.25f}}));
  EXPECT_EQ(table.Read(1)->image_id, "three");
  EXPECT_EQ(table.Read(1)->image_paths[0], "/pictures/3.png");
  ExpectPart(table.Read(2).status(), "b.jsonl: line 2: no good");
  EXPECT_EQ(table.Read(3).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(table.Read(-1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(SampleTable, ImagesStayBelowTheirRoot) {
  SampleTable table("record");
  const int file = table.AddFile("/data/a.json", "/pictures");
  const char* const names[] = {"x/../1.png",        "/pictures/2.png",
                               "../3.png",          "x/../../4.png",
                               "/etc/5.png",        "/pictures/../etc/6.png",
                               "/picturesque/7.png"};
  for (int i = 0; i < 7; ++i) table.Add(MakeRecord(file, i, names[i], "words"));
  const int all = table.AddFile("/data/b.json", "/");
  table.Add(MakeRecord(all, 0, "/etc/8.png", "words"));
  ASSERT_TRUE(table.Finish().ok());
  EXPECT_EQ(table.Read(0)->image_paths[0], "/pictures/x/../1.png");
  EXPECT_EQ(table.Read(1)->image_paths[0], "/pictures/2.png");
  for (int i = 2; i < 7; ++i) {
    ExpectPart(table.Read(i).status(),
               absl::StrCat("/data/a.json: record ", i, ": the image ",
                            names[i], " is outside of /pictures"));
  }
  EXPECT_EQ(table.Read(7)->image_paths[0], "/etc/8.png");
}

TEST(SampleTable, KeepsLongAndManyRecords) {
  SampleTable table("record");
  const int file = table.AddFile("/data/a.json", "");
  // More than a block, longer than a block, and one that just fits.
  const std::string huge(3 << 20, 'x');
  for (int i = 0; i < 30000; ++i) {
    SampleTable::Record record =
        MakeRecord(file, i, absl::StrCat(i, ".png"),
                   i % 10000 == 77 ? huge : absl::StrCat("text ", i));
    record.texts[0].annotators = i * 1000;
    table.Add(record);
  }
  ASSERT_TRUE(table.Finish().ok());
  for (const int i : {0, 76, 77, 78, 9999, 10077, 29999}) {
    const Sample sample = *table.Read(i);
    EXPECT_EQ(sample.texts[0].text,
              i % 10000 == 77 ? huge : absl::StrCat("text ", i));
    EXPECT_EQ(sample.texts[0].annotators, i * 1000);
    EXPECT_EQ(sample.image_id, absl::StrCat(i, ".png"));
  }
}

TEST(SampleTable, GroupsImagesUnderOneRoot) {
  SampleTable table("record", true);
  const int a = table.AddFile("/one/a", ""), b = table.AddFile("/one/b", ""),
            c = table.AddFile("/two/c", "");
  table.Add(MakeRecord(a, 0, "1", "a0"));
  table.Add(MakeRecord(a, 1, "2", "a1"));
  table.AddBad(a, 2, absl::InvalidArgumentError("bad"));
  table.Add(MakeRecord(b, 0, "1", "b0"));
  table.Add(MakeRecord(c, 0, "1", "c0"));
  ASSERT_TRUE(table.Finish().ok());
  ASSERT_EQ(table.size(), 4);
  ASSERT_EQ(table.Read(0)->texts.size(), 2u);
  EXPECT_EQ(table.Read(0)->texts[1].text, "b0");
  EXPECT_EQ(table.Read(1)->texts[0].text, "a1");
  EXPECT_FALSE(table.Read(2).ok());
  EXPECT_EQ(table.Read(3)->image_paths[0], "/two/1");
}

}  // namespace
}  // namespace semvq
