#include "data/sources/webdataset/webdataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "data/image_bytes.h"
#include "data/shard_index.h"
#include "data/shard_writer.h"
#include "data/sources/webdataset/spool.h"

namespace semvq {
namespace {

using Members = std::vector<std::pair<std::string, std::string>>;

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

class WebDataset : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        JoinPath(testing::TempDir(),
                 testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveTree(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
  }
  std::string Path(const std::string& name) { return JoinPath(folder_, name); }
  void Write(const std::string& name, const Members& members) {
    auto writer = ShardWriter::Create(Path(name));
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const auto& [member, content] : members)
      ASSERT_TRUE((*writer)->Add(member, content).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  // Shards 0, 1, ... of `samples` samples each: "<shard>-<sample>".
  void WriteMany(int shards, int samples) {
    for (int s = 0; s < shards; ++s) {
      Members members;
      for (int i = 0; i < samples; ++i) {
        const std::string key = absl::StrCat(s, "-", i);
        members.emplace_back(key + ".jpg", "image " + key);
        members.emplace_back(key + ".txt", "text " + key);
      }
      Write(absl::StrCat(s, ".tar"), members);
    }
  }
  WebDatasetConfig Config(const std::string& shards) {
    WebDatasetConfig config;
    config.add_shards(shards);
    return config;
  }
  static std::shared_ptr<DataSource> Must(const WebDatasetConfig& config) {
    EXPECT_TRUE(ValidateWebDataset(config).ok()) << ValidateWebDataset(config);
    auto source = MakeWebDataset(config, PluginContext());
    EXPECT_TRUE(source.ok()) << source.status();
    return source.ok() ? *source : nullptr;
  }
  static std::string ImageOf(const Sample& sample, size_t slot = 0) {
    absl::StatusOr<std::string> bytes = ReadSampleImage(sample, slot, 1 << 20);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : "";
  }
  // One good sample after the one that is bad.
  void ExpectBadSample(const Members& members, const std::string& part) {
    Members all = members;
    all.emplace_back("z.jpg", "good");
    all.emplace_back("z.txt", "good");
    Write("bad.tar", all);
    auto source = Must(Config(Path("bad.tar")));
    ASSERT_NE(source, nullptr);
    ASSERT_EQ(source->size(), 2);
    ExpectPart(source->Read(0).status(), part);
    ExpectPart(source->Read(0).status(), "bad.tar: sample a: ");
    EXPECT_TRUE(source->Read(1).ok()) << source->Read(1).status();
  }
  std::string folder_;
};

TEST_F(WebDataset, ReadsSamplesInAnyOrder) {
  WriteMany(3, 4);
  auto source = Must(Config(Path("{0..2}.tar")));
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 12);
  for (int64_t i = 11; i >= 0; --i) {
    absl::StatusOr<Sample> sample = source->Read(i);
    ASSERT_TRUE(sample.ok()) << sample.status();
    const std::string key = absl::StrCat(i / 4, "-", i % 4);
    EXPECT_EQ(sample->texts[0].text, "text " + key);
    EXPECT_EQ(ImageOf(*sample), "image " + key);
    EXPECT_EQ(sample->where, absl::StrCat(Path(absl::StrCat(i / 4, ".tar")),
                                          ": sample ", key));
    EXPECT_EQ(sample->image_paths[0], Path(absl::StrCat(i / 4, ".tar")));
  }
  EXPECT_NE(source->Read(0)->image_id, source->Read(1)->image_id);
  EXPECT_EQ(source->Read(12).status().code(), absl::StatusCode::kOutOfRange);
  const std::vector<SourcePart> parts = source->Parts();
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].shards, (std::vector<int64_t>{4, 4, 4}));
  EXPECT_EQ(parts[0].shuffle_shards, 0);
}

TEST_F(WebDataset, SeveralImagesAndRecords) {
  Write("s.tar", {{"a.0.jpg", "left"},
                  {"a.1.jpg", "right"},
                  {"a.json", R"({"sentence": "s", "label": "True"})"},
                  {"b.webp", "w"},
                  {"b.json", R"({"caption": "from json", "image_id": 5})"},
                  {"c.json", R"({"url": "beside .txt"})"},
                  {"c.jpeg", "j"},
                  {"c.txt", " from txt\n"}});
  auto source = Must(Config(Path("s.tar")));
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 3);
  const Sample two = *source->Read(0);
  EXPECT_EQ(ImageOf(two, 0), "left");
  EXPECT_EQ(ImageOf(two, 1), "right");
  EXPECT_EQ(two.texts[0].answers[0].first, "True");
  EXPECT_EQ(source->Read(1)->image_id, "5");
  EXPECT_EQ(source->Read(1)->texts[0].text, "from json");
  EXPECT_EQ(source->Read(2)->texts[0].text, "from txt");
}

TEST_F(WebDataset, BadSamplesAreNamed) {
  ExpectBadSample({{"a.txt", "no image"}}, "has no image");
  ExpectBadSample({{"a.jpg", "x"}}, "has no text");
  ExpectBadSample({{"a.jpg", "x"}, {"a.txt", " \n"}}, "has no words");
  ExpectBadSample({{"a.jpg", "x"}, {"a.json", "{"}}, "member .json: not valid");
  ExpectBadSample({{"a.jpg", "x"}, {"a.png", "y"}, {"a.txt", "t"}},
                  ".png is not the one that comes next");
  ExpectBadSample({{"a.1.jpg", "x"}, {"a.0.jpg", "y"}, {"a.txt", "t"}},
                  "not the one that comes next");
  ExpectBadSample({{"a.jpg", "x"}, {"a.txt", std::string(1048577, 'x')}},
                  "1048577 bytes, expected at most 1048576");
  ExpectBadSample({{"a.jpg", "x"}, {"a.txt", "\xFF"}}, "UTF-8");
}

TEST_F(WebDataset, ImagesAreBoundedByBytes) {
  Write("s.tar", {{"a.jpg", std::string(5000, 'x')}, {"a.txt", "t"}});
  const Sample sample = *Must(Config(Path("s.tar")))->Read(0);
  EXPECT_TRUE(ReadSampleImage(sample, 0, 5000).ok());
  ExpectPart(ReadSampleImage(sample, 0, 4999).status(),
             "the image has 5000 bytes, expected at most 4999");
}

TEST_F(WebDataset, AnIndexBesideTheShardIsUsedAndAnOldOneIsNot) {
  WriteMany(1, 3);
  const std::string shard = Path("0.tar");
  ShardIndex index = *ShardIndex::Scan(shard);
  // Without its last sample, so that it can be told from a new one.
  std::string text = index.text();
  text = text.substr(0, text.rfind('\n', text.size() - 2) + 1);
  text.replace(text.find("\t3\t"), 3, "\t2\t");
  ASSERT_TRUE(AtomicWriteFile(IndexPath(shard), text).ok());
  EXPECT_EQ(Must(Config(shard))->size(), 2);
  // Of another length.
  WriteMany(1, 30);
  EXPECT_EQ(Must(Config(shard))->size(), 30);
  // Of the same length, but with other contents.
  Write("0.tar", {{"a.jpg", "image"}, {"a.txt", "text"}});
  index = *ShardIndex::Scan(shard);
  ASSERT_TRUE(AtomicWriteFile(IndexPath(shard), index.text()).ok());
  Write("0.tar", {{"a.jpg", "image"}, {"a.txt", "other"}});
  auto source = Must(Config(shard));
  ExpectPart(source->Read(0).status(), "not those that were indexed");
  ExpectPart(source->Read(0).status(), IndexPath(shard));
}

TEST_F(WebDataset, IndexesAreKeptInTheSpoolFolder) {
  WriteMany(2, 3);
  WebDatasetConfig config = Config(Path("{0..1}.tar"));
  config.set_spool_folder(Path("spool"));
  EXPECT_EQ(Must(config)->size(), 6);
  const std::vector<std::string> names = *ListDirectory(Path("spool"));
  ASSERT_EQ(names.size(), 2u);
  // What is kept is used, and made anew where it is damaged.
  const std::string kept = JoinPath(Path("spool"), names[0]);
  const std::string before = *ReadFile(kept);
  ASSERT_TRUE(AtomicWriteFile(kept, "damaged").ok());
  EXPECT_EQ(Must(config)->size(), 6);
  EXPECT_EQ(*ReadFile(kept), before);
}

TEST_F(WebDataset, MissingShardsStop) {
  WriteMany(1, 3);
  ExpectPart(
      MakeWebDataset(Config(Path("{0..1}.tar")), PluginContext()).status(),
      "1.tar does not exist. Wanted there: a tar file");
  ExpectPart(MakeWebDataset(Config(folder_), PluginContext()).status(),
             "got no file");
}

TEST_F(WebDataset, DamagedShardsAreNamedUpToTheThreshold) {
  WriteMany(10, 4);
  const std::string path = Path("3.tar");
  const std::string whole = *ReadFile(path);
  ASSERT_TRUE(AtomicWriteFile(path, whole.substr(0, 3000)).ok());
  ASSERT_TRUE(AtomicWriteFile(Path("7.tar"), "<html>").ok());
  WebDatasetConfig config = Config(Path("{0..9}.tar"));
  const absl::Status status = MakeWebDataset(config, PluginContext()).status();
  ExpectPart(status, "2 of 10 shards are damaged");
  ExpectPart(status, "3.tar: it is cut off at byte 3000");
  ExpectPart(status, "7.tar: it is no tar file");
  ExpectPart(status, "max_damaged_shards = 0.01");
  config.set_max_damaged_shards(0.2);
  testing::internal::CaptureStderr();
  auto source = Must(config);
  EXPECT_TRUE(absl::StrContains(testing::internal::GetCapturedStderr(),
                                "2 of 10 shards are damaged:\n  " + path));
  ASSERT_NE(source, nullptr);
  // What stands before the damage, and a bad sample for each damaged shard.
  EXPECT_EQ(source->size(), 8 * 4 + 1 + 1 + 1);
  ExpectPart(source->Read(13).status(), "3.tar: it is cut off");
  ExpectPart(source->Read(13).status(), "lost");
  int good = 0;
  for (int64_t i = 0; i < source->size(); ++i) good += source->Read(i).ok();
  EXPECT_EQ(good, 33);
}

TEST_F(WebDataset, AShardThatVanishesIsAnErrorOfItsSamples) {
  WriteMany(2, 2);
  auto source = Must(Config(Path("{0..1}.tar")));
  const Sample open = *source->Read(0);
  ASSERT_EQ(unlink(Path("0.tar").c_str()), 0);
  ASSERT_EQ(unlink(Path("1.tar").c_str()), 0);
  EXPECT_EQ(ImageOf(open), "image 0-0") << "what is open stays usable";
  ExpectPart(source->Read(2).status(), "1.tar");
  ExpectPart(source->Read(2).status(), "sample 1-0");
}

TEST_F(WebDataset, CommandsAreRunAndKept) {
  WriteMany(6, 5);
  WebDatasetConfig config = Config("pipe:cat " + Path("{0..5}.tar"));
  config.set_spool_folder(Path("spool"));
  config.set_spool_shards(2);
  ExpectPart(ValidateWebDataset(config),
             "shuffle_shards: got 0, expected 1 to 1");
  config.set_shuffle_shards(1);
  auto source = Must(config);
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 30);
  EXPECT_EQ(source->Parts()[0].shuffle_shards, 1);
  for (int64_t i = 0; i < 30; i += 3) {
    absl::StatusOr<Sample> sample = source->Read(i);
    ASSERT_TRUE(sample.ok()) << sample.status();
    const std::string key = absl::StrCat(i / 5, "-", i % 5);
    EXPECT_EQ(sample->texts[0].text, "text " + key);
    EXPECT_EQ(ImageOf(*sample), "image " + key);
    int kept = 0;
    const std::vector<std::string> names = *ListDirectory(Path("spool"));
    for (const std::string& name : names) kept += absl::EndsWith(name, ".tar");
    EXPECT_LE(kept, 2);
  }
  // Indexes stay: the next start runs no command.
  for (int i = 0; i < 6; ++i)
    ASSERT_EQ(unlink(Path(absl::StrCat(i, ".tar")).c_str()), 0);
  EXPECT_EQ(Must(config)->size(), 30);
}

TEST_F(WebDataset, CommandsThatFail) {
  WriteMany(1, 2);
  WebDatasetConfig config = Config("pipe:cat " + Path("{0..1}.tar"));
  config.set_spool_folder(Path("spool"));
  ExpectPart(MakeWebDataset(config, PluginContext()).status(),
             "it ended with code 1");
  config.set_max_damaged_shards(0.5);
  auto source = Must(config);
  ASSERT_NE(source, nullptr);
  EXPECT_EQ(source->size(), 3);
  ExpectPart(source->Read(2).status(), "it ended with code 1");
}

TEST_F(WebDataset, CommandsReachNoShell) {
  const std::string out = Path("out");
  const std::string made = Path("made");
  // To a shell this would be a second command.
  const absl::Status status = RunToFile(
      absl::StrCat("pipe:echo x; touch ", made, " $HOME `touch ", made, "`"),
      out, 1000);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(*ReadFile(out),
            absl::StrCat("x; touch ", made, " $HOME `touch ", made, "`\n"));
  EXPECT_FALSE(PathExists(made));
  ExpectPart(RunToFile("pipe:/no/such/program", out, 10),
             "/no/such/program cannot be started");
  // Endless output ends at the limit, and leaves nothing.
  ExpectPart(RunToFile("pipe:yes", Path("endless"), 100000),
             "more than max_shard_bytes = 100000");
  ExpectPart(RunToFile("pipe:sh -c 'kill -9 $$'", Path("endless"), 100000),
             "ended by signal 9");
  EXPECT_EQ(*ListDirectory(folder_), std::vector<std::string>{"out"});
  // It reads nothing of ours.
  ASSERT_TRUE(RunToFile("pipe:cat", out, 10).ok());
  EXPECT_EQ(*ReadFile(out), "");
}

TEST_F(WebDataset, Validate) {
  WebDatasetConfig config;
  ExpectPart(ValidateWebDataset(config), "shards: got none");
  config = Config("a.tar.gz");
  ExpectPart(ValidateWebDataset(config), "pipe:gzip -dc");
  config = Config("pipe:cat a.tar");
  ExpectPart(ValidateWebDataset(config), "spool_folder: got none");
  config.set_spool_folder("/tmp/spool");
  EXPECT_TRUE(ValidateWebDataset(config).ok());
  config.add_shards("pipe:cat 'x");
  config.add_shards("{3..1}");
  config.add_shards("{3..1}");
  config.set_spool_shards(0);
  config.set_max_damaged_shards(2);
  config.set_shuffle_shards(-1);
  const absl::Status status = ValidateWebDataset(config);
  for (const char* part :
       {"quote that does not end", "runs forwards", "each only once",
        "spool_shards: got 0", "shuffle_shards: got -1",
        "max_damaged_shards: got 2"}) {
    ExpectPart(status, part);
  }
}

TEST_F(WebDataset, ContractNamesTheShards) {
  WebDatasetConfig config = Config("${DATA}/{0..2}.tar");
  config.add_shards("pipe:cat x");
  const Contract contract = WebDatasetContract("x", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 3u);
  EXPECT_EQ(contract.files[1].path, "${DATA}/1.tar");
  EXPECT_EQ(contract.files[1].field, "shards");
}

}  // namespace
}  // namespace semvq
