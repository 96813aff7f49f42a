// Names, indexes and texts of tar shards.
#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "data/shard_index.h"
#include "data/shard_names.h"
#include "data/shard_texts.h"
#include "data/shard_writer.h"

namespace semvq {
namespace {

using Strings = std::vector<std::string>;

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

std::string Path(const std::string& name) {
  return testing::TempDir() + "/" + name;
}

std::string WriteTar(
    const std::string& name,
    const std::vector<std::pair<std::string, std::string>>& members) {
  auto writer = ShardWriter::Create(Path(name));
  EXPECT_TRUE(writer.ok()) << writer.status();
  for (const auto& [member, content] : members)
    EXPECT_TRUE((*writer)->Add(member, content).ok());
  EXPECT_TRUE((*writer)->Finish().ok());
  return Path(name);
}

ShardIndex Scan(const std::string& path) {
  absl::StatusOr<ShardIndex> index = ShardIndex::Scan(path);
  EXPECT_TRUE(index.ok()) << index.status();
  return index.ok() ? *std::move(index) : ShardIndex();
}

// The bytes that the index names.
std::string Content(const std::string& path, const ShardMember& member) {
  return ReadFile(path)->substr(member.offset, member.size);
}

TEST(ShardNames, Braces) {
  EXPECT_EQ(*ExpandBraces("a.tar"), Strings{"a.tar"});
  EXPECT_EQ(*ExpandBraces("x-{008..011}.tar"),
            (Strings{"x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"}));
  EXPECT_EQ(*ExpandBraces("{9..10}"), (Strings{"9", "10"}));
  EXPECT_EQ(*ExpandBraces("{a,b,}/{0..1}"),
            (Strings{"a/0", "a/1", "b/0", "b/1", "/0", "/1"}));
  EXPECT_EQ(*ExpandBraces("${SEMVQ_DATA}/{x}/{1..1}"),
            Strings{"${SEMVQ_DATA}/{x}/1"});
  EXPECT_EQ(*ExpandBraces("a{0..1"), Strings{"a{0..1"});
  EXPECT_EQ(*ExpandBraces("{a..b}"), Strings{"{a..b}"});
  EXPECT_EQ(*ExpandBraces(""), Strings{""});
  ExpectPart(ExpandBraces("{5..4}").status(), "{5..4}: expected a range");
  ExpectPart(ExpandBraces("{0..99999999999}").status(), "expected a range");
  ExpectPart(ExpandBraces("{0..9999}{0..9999}").status(), "more than 1000000");
}

TEST(ShardNames, Commands) {
  EXPECT_TRUE(IsCommand("pipe:cat x"));
  EXPECT_FALSE(IsCommand("/data/pipe:x"));
  EXPECT_EQ(*CommandWords("pipe:aws  s3 cp s3://b/0.tar -"),
            (Strings{"aws", "s3", "cp", "s3://b/0.tar", "-"}));
  // Nothing but words: no variable, glob, substitution or second command.
  EXPECT_EQ(*CommandWords("pipe:cat $HOME/*.tar; rm `x` > y | z"),
            (Strings{"cat", "$HOME/*.tar;", "rm", "`x`", ">", "y", "|", "z"}));
  EXPECT_EQ(*CommandWords(R"(pipe:sh -c 'a "b" | c' "d 'e'" f\ g '')"),
            (Strings{"sh", "-c", "a \"b\" | c", "d 'e'", "f g", ""}));
  ExpectPart(CommandWords("pipe:").status(), "empty command");
  ExpectPart(CommandWords("pipe:a 'b").status(), "quote that does not end");
}

TEST(ShardIndex, FindsEverySample) {
  const std::string long_key(300, 'k');
  const std::string path =
      WriteTar("found.tar", {{"0001.jpg", std::string(1000, 'j')},
                             {"0001.txt", "a cat"},
                             {"0001.cls", "7"},
                             {"./dir.v1/0002.0.PNG", "left"},
                             {"./dir.v1/0002.1.PNG", std::string(512, 'r')},
                             {"./dir.v1/0002.json", "{}"},
                             {"README", "no sample"},
                             {long_key + ".jpg", ""},
                             {long_key + ".txt", "long"},
                             {"\xC3\xA4.jpg", "umlaut"}});
  const ShardIndex index = Scan(path);
  EXPECT_EQ(index.damage(), "");
  EXPECT_EQ(index.shard_bytes(), *FileSize(path));
  ASSERT_EQ(index.size(), 4);
  ShardSample sample = index.Get(0);
  EXPECT_EQ(sample.key, "0001");
  ASSERT_EQ(sample.members.size(), 2u);
  EXPECT_EQ(sample.members[0].extension, "jpg");
  EXPECT_EQ(Content(path, sample.members[0]), std::string(1000, 'j'));
  EXPECT_EQ(Content(path, sample.members[1]), "a cat");
  sample = index.Get(1);
  EXPECT_EQ(sample.key, "dir.v1/0002");
  ASSERT_EQ(sample.members.size(), 3u);
  EXPECT_EQ(sample.members[1].extension, "1.png");
  EXPECT_EQ(Content(path, sample.members[0]), "left");
  EXPECT_EQ(Content(path, sample.members[1]), std::string(512, 'r'));
  sample = index.Get(2);
  EXPECT_EQ(sample.key, long_key);
  EXPECT_EQ(Content(path, sample.members[1]), "long");
  EXPECT_EQ(index.Get(3).key, "\xC3\xA4");
  const std::string bytes = *ReadFile(path);
  const ShardMember text = index.Get(0).members[1];
  EXPECT_TRUE(IsHeaderOf(bytes.substr(text.offset - 512, 512), text.size));
  EXPECT_FALSE(IsHeaderOf(bytes.substr(text.offset - 512, 512), text.size + 1));
  EXPECT_FALSE(IsHeaderOf(bytes.substr(text.offset, 512), text.size));
  EXPECT_FALSE(IsHeaderOf("", 0));
}

TEST(ShardIndex, ItsTextSaysTheSame) {
  const std::string path = WriteTar(
      "text.tar", {{"a\tb.jpg", "1"}, {"a\tb.txt", "2"}, {"c.json", "{}"}});
  const ShardIndex index = Scan(path);
  absl::StatusOr<ShardIndex> again = ShardIndex::Parse(index.text());
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_EQ(again->size(), 2);
  EXPECT_EQ(again->Get(0).key, "a\tb");
  EXPECT_EQ(again->Get(0).members[1].offset, index.Get(0).members[1].offset);
  EXPECT_EQ(again->shard_bytes(), index.shard_bytes());
  // Whatever is cut off or changed is noticed, or harmless.
  for (size_t size = 0; size < index.text().size(); ++size)
    EXPECT_FALSE(ShardIndex::Parse(index.text().substr(0, size)).ok()) << size;
  for (size_t at = 0; at < index.text().size(); ++at) {
    for (const char c : {'\0', '9', '\t', '\n', ':', '-', '\xFF'}) {
      std::string text = index.text();
      text[at] = c;
      absl::StatusOr<ShardIndex> changed = ShardIndex::Parse(text);
      if (!changed.ok()) continue;
      for (int64_t i = 0; i < changed->size(); ++i) {
        for (const ShardMember& member : changed->Get(i).members) {
          EXPECT_GE(member.offset, 512);
          EXPECT_LE(member.offset + member.size, changed->shard_bytes());
        }
      }
    }
  }
  ExpectPart(ShardIndex::Parse("v1.2 3\n").status(), "does not begin with");
  ExpectPart(ShardIndex::Parse("semvq-shard-index 1\t1000\t1\t\n"
                               "k\tjpg:512:9223372036854775807\n")
                 .status(),
             "outside of the shard");
}

TEST(ShardIndex, ACutOffShardGivesWhatIsThere) {
  const std::string path =
      WriteTar("whole.tar", {{"0.jpg", std::string(600, 'a')},
                             {"0.txt", "one"},
                             {"1.jpg", std::string(600, 'b')},
                             {"1.txt", "two"}});
  const std::string whole = *ReadFile(path);
  const ShardIndex full = Scan(path);
  ASSERT_EQ(full.size(), 2);
  const std::string cut = Path("cut.tar");
  for (size_t size = 0; size < 5200; size += 128) {
    ASSERT_TRUE(AtomicWriteFile(cut, whole.substr(0, size)).ok());
    const ShardIndex index = Scan(cut);
    EXPECT_NE(index.damage(), "") << size;
    EXPECT_LE(index.size(), 2);
    for (int64_t i = 0; i < index.size(); ++i) {
      const ShardSample got = index.Get(i), expected = full.Get(i);
      ASSERT_LE(got.members.size(), expected.members.size());
      for (size_t m = 0; m < got.members.size(); ++m) {
        EXPECT_EQ(got.members[m].offset, expected.members[m].offset);
        EXPECT_EQ(got.members[m].size, expected.members[m].size);
      }
    }
  }
}

TEST(ShardIndex, DamagedHeadersAndOtherFiles) {
  const std::string path = WriteTar(
      "broken.tar",
      {{"0.jpg", "a"}, {"0.txt", "one"}, {"1.jpg", "b"}, {"1.txt", "two"}});
  std::string bytes = *ReadFile(path);
  bytes[2048 + 3] = 'X';  // In the name of the third header.
  ASSERT_TRUE(AtomicWriteFile(path, bytes).ok());
  const ShardIndex index = Scan(path);
  EXPECT_EQ(index.size(), 1);
  EXPECT_NE(index.damage().find("at byte 2048"), std::string::npos)
      << index.damage();
  for (const std::string& content :
       {std::string(), std::string("<html>no</html>"), std::string(3000, '\7'),
        std::string("\x1f\x8b\x08\x00", 4) + std::string(1000, 'z')}) {
    ASSERT_TRUE(AtomicWriteFile(path, content).ok());
    EXPECT_EQ(Scan(path).size(), 0);
    EXPECT_NE(Scan(path).damage(), "");
  }
  EXPECT_TRUE(absl::IsNotFound(ShardIndex::Scan("/no/such.tar").status()));
}

// A header may claim anything; only the file's own size is believed.
TEST(ShardIndex, HostileSizes) {
  const std::string path = WriteTar("hostile.tar", {{"0.jpg", "a"}});
  for (const char* size : {"77777777777", "00077777777",
                           "\x80\xFF\xFF\xFF\xFF"
                           "\xFF\xFF\xFF\xFF\xFF\xFF\xFF"}) {
    std::string bytes = *ReadFile(path);
    std::memcpy(&bytes[124], size, std::strlen(size));
    std::memset(&bytes[148], ' ', 8);
    int sum = 0;
    for (int i = 0; i < 512; ++i) sum += static_cast<unsigned char>(bytes[i]);
    std::snprintf(&bytes[148], 8, "%06o", sum);
    const std::string changed = Path("hostile2.tar");
    ASSERT_TRUE(AtomicWriteFile(changed, bytes).ok());
    const ShardIndex index = Scan(changed);
    EXPECT_NE(index.damage(), "");
    EXPECT_EQ(index.size(), 0);
  }
}

TEST(ShardIndex, LinksAndPlacesOutsideAreNotFollowed) {
  const std::string path = Path("links.tar");
  archive* tar = archive_write_new();
  archive_write_set_format_pax_restricted(tar);
  ASSERT_EQ(archive_write_open_filename(tar, path.c_str()), ARCHIVE_OK);
  const auto add = [&](const char* name, mode_t type, const char* symbolic,
                       const char* hard) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, symbolic || hard ? 0 : 1);
    if (symbolic != nullptr) archive_entry_set_symlink(entry, symbolic);
    if (hard != nullptr) archive_entry_set_hardlink(entry, hard);
    ASSERT_EQ(archive_write_header(tar, entry), ARCHIVE_OK) << name;
    if (!symbolic && !hard) archive_write_data(tar, "x", 1);
    archive_entry_free(entry);
  };
  add("0.jpg", AE_IFLNK, "/etc/passwd", nullptr);
  add("1.jpg", AE_IFREG, nullptr, "0.jpg");
  add("../2.jpg", AE_IFREG, nullptr, nullptr);
  add("/3.jpg", AE_IFREG, nullptr, nullptr);
  add("a/../../4.txt", AE_IFREG, nullptr, nullptr);
  add("5.jpg", AE_IFREG, nullptr, nullptr);
  archive_write_close(tar);
  archive_write_free(tar);
  const ShardIndex index = Scan(path);
  EXPECT_EQ(index.damage(), "");
  ASSERT_EQ(index.size(), 6);
  const char* expected[] = {"symbolic link", "hard link", "outside", "outside",
                            "outside"};
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_NE(index.Get(i).problem.find(expected[i]), std::string::npos)
        << index.Get(i).problem;
    EXPECT_TRUE(index.Get(i).members.empty());
  }
  EXPECT_EQ(index.Get(5).problem, "");
}

TEST(ShardWriter, EqualMembersGiveEqualBytes) {
  EXPECT_EQ(*ReadFile(WriteTar("w1.tar", {{"0.jpg", "a"}, {"0.json", "b"}})),
            *ReadFile(WriteTar("w2.tar", {{"0.jpg", "a"}, {"0.json", "b"}})));
  ExpectPart(ShardWriter::Create("/no/such/folder/x.tar").status(),
             "/no/such/folder/x.tar");
}

TEST(ShardTexts, ComeBackAsTheyWere) {
  std::vector<TextRecord> texts(2);
  texts[0].text = "a \"c\xC3\xA4t\"\n\\";
  texts[1].id = "12";
  texts[1].text = "what?";
  texts[1].answers = {{"yes", 0.3f}, {"", 1.0f / 3}, {"no", 1e-30f}};
  texts[1].annotators = 10;
  Sample sample;
  const std::string json = ShardTextsJson("an \"id\"", texts);
  ASSERT_TRUE(ReadShardTexts(json, &sample).ok()) << json;
  EXPECT_EQ(sample.image_id, "an \"id\"");
  ASSERT_EQ(sample.texts.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(sample.texts[i].id, texts[i].id);
    EXPECT_EQ(sample.texts[i].text, texts[i].text);
    EXPECT_EQ(sample.texts[i].answers, texts[i].answers);
    EXPECT_EQ(sample.texts[i].annotators, texts[i].annotators);
  }
}

TEST(ShardTexts, ReadsAlbefsRecords) {
  Sample sample;
  sample.image_id = "default";
  ASSERT_TRUE(
      ReadShardTexts(R"({"caption": ["a", "b"], "url": "x"})", &sample).ok());
  EXPECT_EQ(sample.image_id, "default");
  ASSERT_EQ(sample.texts.size(), 2u);
  EXPECT_EQ(sample.texts[1].text, "b");
  Sample vqa;
  ASSERT_TRUE(
      ReadShardTexts(R"({"question": "q", "answer": "y", "image_id": 7})", &vqa)
          .ok());
  EXPECT_EQ(vqa.image_id, "7");
  EXPECT_EQ(vqa.texts[0].answers[0].first, "y");
  const auto expect = [](const char* json, const char* part) {
    Sample bad;
    ExpectPart(ReadShardTexts(json, &bad), part);
  };
  expect("", "not valid JSON");
  expect("[]", "got a list, expected an object");
  expect("{}", "\"caption\"");
  expect("{\"caption\": \"\xFF\"}", "not valid JSON");
  expect(R"({"texts": []})", "\"texts\": expected a list that is not empty");
  expect(R"({"texts": [{"text": " "}]})", "empty text");
  expect(R"({"texts": [{"text": "a", "answers": [["x", -1]]}]})", "share");
  expect(R"({"texts": [{"text": "a", "annotators": 0}]})", "annotators");
}

}  // namespace
}  // namespace semvq
