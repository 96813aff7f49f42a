// Packing data sets and verifying them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "data/image_bytes.h"
#include "tests/e2e/process.h"
#include "tests/shapes.h"
#include "tools/data/dataset.h"
#include "tools/data/pack.h"
#include "tools/data/survey.h"

namespace semvq::tools {
namespace {

class PackVerify : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        JoinPath(testing::TempDir(),
                 testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveTree(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    ShapesOptions options;
    options.images = 40;
    ASSERT_TRUE(WriteShapes(Path("shapes"), options).ok());
  }
  std::string Path(const std::string& name) const {
    return JoinPath(folder_, name);
  }
  static std::shared_ptr<const DataSource> Open(const std::string& flag,
                                                const std::string& value,
                                                bool group = false) {
    DatasetFlags flags;
    EXPECT_TRUE(flags.Take(flag, value));
    if (group) flags.Take("group_by_image", "");
    auto opened = flags.Open("test");
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? opened->source : nullptr;
  }
  PackOptions Options(const std::string& out) const {
    PackOptions options;
    options.out = Path(out);
    options.shard_samples = 7;
    return options;
  }
  // Everything in a folder, by name.
  static std::map<std::string, std::string> Files(const std::string& folder) {
    std::map<std::string, std::string> files;
    const auto names = ListDirectory(folder);
    EXPECT_TRUE(names.ok()) << names.status();
    for (const std::string& name : *names)
      files[name] = *ReadFile(JoinPath(folder, name));
    return files;
  }
  static ProcessResult Run(const std::string& tool,
                           const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {absl::StrCat("tools/data/", tool)};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return RunProcess(words);
  }
  std::string folder_;
};

// Image id to image bytes and texts, with all that is known of them.
std::map<std::string, std::string> Contents(const DataSource& source) {
  std::map<std::string, std::string> contents;
  for (int64_t i = 0; i < source.size(); ++i) {
    absl::StatusOr<Sample> sample = source.Read(i);
    EXPECT_TRUE(sample.ok()) << sample.status();
    if (!sample.ok()) continue;
    std::string all;
    for (size_t slot = 0; slot < sample->image_paths.size(); ++slot)
      all += *ReadSampleImage(*sample, slot, 1 << 20);
    for (const TextRecord& text : sample->texts) {
      absl::StrAppend(&all, "|", text.id, "|", text.text, "|", text.annotators);
      for (const auto& [answer, share] : text.answers)
        absl::StrAppend(&all, "|", answer, "=", share);
    }
    contents[absl::StrCat(sample->image_id, "#",
                          contents.count(sample->image_id))] = all;
  }
  return contents;
}

TEST_F(PackVerify, EverySampleComesBack) {
  for (const bool shuffle : {false, true}) {
    const auto source = Open("list", Path("shapes/vqa.json"), /*group=*/true);
    ASSERT_NE(source, nullptr);
    PackOptions options = Options(shuffle ? "shuffled" : "given");
    options.shuffle = shuffle;
    const auto result = Pack(*source, "vqa", options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->samples, 40);
    EXPECT_EQ(result->shards, 6);
    EXPECT_EQ(result->bad, 0);
    const auto packed = Open("shards", result->pattern);
    ASSERT_NE(packed, nullptr);
    ASSERT_EQ(packed->size(), 40);
    EXPECT_EQ(Contents(*packed), Contents(*source));
    EXPECT_EQ(packed->Parts()[0].shards,
              (std::vector<int64_t>{7, 7, 7, 7, 7, 5}));
    EXPECT_EQ(packed->Read(0)->image_id == source->Read(0)->image_id, !shuffle);
  }
}

TEST_F(PackVerify, PairsOfImagesComeBack) {
  std::string list = "[";
  for (int i = 0; i < 5; ++i) {
    absl::StrAppend(&list, i == 0 ? "" : ",", R"({"images": ["images/)", i,
                    R"(.png", "images/)", i + 1,
                    R"(.png"], "sentence": "s", "label": "True"})");
  }
  ASSERT_TRUE(AtomicWriteFile(Path("shapes/two.json"), list + "]").ok());
  const auto source = Open("list", Path("shapes/two.json"));
  const auto result = Pack(*source, "two", Options("two"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Contents(*Open("shards", result->pattern)), Contents(*source));
}

TEST_F(PackVerify, EqualCallsGiveEqualFiles) {
  const auto source = Open("list", Path("shapes/pairs.json"));
  PackOptions options = Options("one");
  options.workers = 1;
  ASSERT_TRUE(Pack(*source, "x", options).ok());
  options.out = Path("three");
  options.workers = 3;
  ASSERT_TRUE(Pack(*source, "x", options).ok());
  EXPECT_EQ(Files(Path("one")), Files(Path("three")));
  options.out = Path("seed");
  options.seed = 2;
  ASSERT_TRUE(Pack(*source, "x", options).ok());
  EXPECT_NE(Files(Path("one")), Files(Path("seed")));
}

TEST_F(PackVerify, GoesOnAfterAnInterruption) {
  const auto source = Open("list", Path("shapes/pairs.json"));
  const PackOptions options = Options("out");
  ASSERT_TRUE(Pack(*source, "x", options).ok());
  const auto whole = Files(options.out);
  // Stopped between a shard and its index, within a shard, and before one.
  ASSERT_EQ(unlink(JoinPath(options.out, "shard-00001.tar.idx").c_str()), 0);
  ASSERT_EQ(unlink(JoinPath(options.out, "shard-00003.tar").c_str()), 0);
  ASSERT_EQ(unlink(JoinPath(options.out, "shard-00003.tar.idx").c_str()), 0);
  ASSERT_TRUE(
      AtomicWriteFile(JoinPath(options.out, "shard-00003.tar.partial"), "half")
          .ok());
  ASSERT_TRUE(
      AtomicWriteFile(JoinPath(options.out, "shard-00004.tar"), "cut").ok());
  const auto result = Pack(*source, "x", options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kept, 3);
  EXPECT_EQ(result->samples, 40);
  EXPECT_EQ(Files(options.out), whole);
  // Another data set, or other options, are not mixed in.
  EXPECT_EQ(Pack(*source, "y", options).status().code(),
            absl::StatusCode::kFailedPrecondition);
  PackOptions other = options;
  other.seed = 9;
  EXPECT_EQ(Pack(*source, "x", other).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Files(options.out), whole);
}

TEST_F(PackVerify, BadSamplesAreLeftOutAndNamed) {
  ASSERT_TRUE(AtomicWriteFile(Path("shapes/images/3.png"), "<html>").ok());
  ASSERT_EQ(unlink(Path("shapes/images/17.png").c_str()), 0);
  const auto source = Open("list", Path("shapes/pairs.json"));
  const PackOptions options = Options("out");
  for (int round = 0; round < 2; ++round) {  // Made, then found there.
    const auto result = Pack(*source, "x", options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->samples, 38);
    EXPECT_EQ(result->bad, 2);
    EXPECT_EQ(result->kept, round == 0 ? 0 : 6);
    const std::string names =
        *ReadFile(JoinPath(options.out, "shard-bad_samples.txt"));
    EXPECT_TRUE(absl::StrContains(names, "record 3: ")) << names;
    EXPECT_TRUE(absl::StrContains(names, "starts with '<html>'")) << names;
    EXPECT_TRUE(absl::StrContains(names, "record 17: ")) << names;
    EXPECT_TRUE(absl::StrContains(names, "does not exist")) << names;
  }
}

TEST_F(PackVerify, TooManyBadSamplesStopPacking) {
  for (int i = 0; i < 15; ++i)
    ASSERT_EQ(unlink(Path(absl::StrCat("shapes/images/", i, ".png")).c_str()),
              0);
  const auto source = Open("list", Path("shapes/pairs.json"));
  PackOptions options = Options("out");
  const absl::Status status = Pack(*source, "x", options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "are bad")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "does not exist")) << status;
  options.max_bad_fraction = 0.4;
  EXPECT_TRUE(Pack(*source, "x", options).ok());
}

TEST_F(PackVerify, SurveyCountsWhatIsThere) {
  // 0 and 1 have the same bytes; 2 is named twice with the same words.
  ASSERT_TRUE(AtomicWriteFile(Path("shapes/images/1.png"),
                              *ReadFile(Path("shapes/images/0.png")))
                  .ok());
  ASSERT_TRUE(AtomicWriteFile(
                  Path("shapes/few.json"),
                  R"([{"image": "images/0.png", "caption": "One red Circle."},
              {"image": "images/1.png", "caption": "one red circle"},
              {"image": "images/2.png", "caption": "two"},
              {"image": "images/2.png", "caption": "two"},
              {"image": "images/2.png", "caption": "a b c d"},
              {"image": "images/4.png", "caption": "x", "image_id": 7},
              {"image": "images/5.png", "caption": "y", "image_id": 7},
              {"image": "images/gone.png", "caption": "z"},
              {"image": "images/6.png", "caption": "!!"},
              {"image": "images/6.png"}])")
                  .ok());
  const auto source = Open("list", Path("shapes/few.json"));
  SurveyOptions options;
  options.max_words = 3;
  std::string pages[2];
  for (const int workers : {1, 3}) {
    options.workers = workers;
    Survey s = TakeSurvey(*source, options);
    EXPECT_EQ(s.samples, 10);
    EXPECT_EQ(s.good, 7);
    EXPECT_EQ(s.bad, 3);
    ASSERT_EQ(s.bad_names.size(), 3u);
    EXPECT_TRUE(absl::StrContains(s.bad_names[0], "record 7: "));
    EXPECT_TRUE(absl::StrContains(s.bad_names[1], "record 8: "));
    EXPECT_TRUE(absl::StrContains(s.bad_names[2], "record 9: "));
    EXPECT_EQ(s.bad_kinds["the file does not exist"], 1);
    EXPECT_EQ(s.images, 7);
    EXPECT_EQ(s.formats["PNG"], 7);
    EXPECT_EQ(s.shorter_side.counts[1], 7);  // 32 pixels.
    EXPECT_EQ(s.duplicate_images, 1);
    ASSERT_EQ(s.duplicates.size(), 1u);
    EXPECT_TRUE(absl::StrContains(s.duplicates[0].first, "record 0"));
    EXPECT_TRUE(absl::StrContains(s.duplicates[0].second, "record 1"));
    EXPECT_EQ(s.ambiguous_ids, 1);
    EXPECT_TRUE(absl::StrContains(s.ambiguous[0].second, "record 6"));
    EXPECT_EQ(s.repeated_pairs, 1);
    EXPECT_EQ(s.texts, 7);
    EXPECT_EQ(s.distinct_texts, 5);
    EXPECT_EQ(s.cut_texts, 1);
    EXPECT_EQ(s.words, 3 + 3 + 1 + 1 + 4 + 1 + 1);
    ASSERT_EQ(s.frequent_texts.size(), 2u);
    EXPECT_EQ(s.frequent_texts[0].count, 2);
    EXPECT_EQ(s.text_words.total(), 7);
    s.seconds = 1;
    pages[workers == 1 ? 0 : 1] = SurveyPage(s, "few <b>", "It failed.");
  }
  EXPECT_EQ(pages[0], pages[1]);
  for (const char* part :
       {"few &lt;b&gt;", "It failed.", "Samples that cannot be used",
        "record 9: ", "another image id", "name images with different bytes"}) {
    EXPECT_TRUE(absl::StrContains(pages[0], part)) << part;
  }
  // It needs nothing else: no script, and nothing from elsewhere.
  for (const char* part : {"http", "<script", "<link", "src="})
    EXPECT_FALSE(absl::StrContains(pages[0], part)) << part;
}

TEST_F(PackVerify, DecodingFindsWhatHeadersHide) {
  // A sound frame around pixel data that is not.
  std::string bytes = *ReadFile(Path("shapes/images/3.png"));
  const size_t data = bytes.find("IDAT");
  ASSERT_NE(data, std::string::npos);
  std::string list = R"([{"image": "images/3.png", "caption": "x"}])";
  ASSERT_TRUE(AtomicWriteFile(Path("shapes/one.json"), list).ok());
  bytes[data + 8] ^= 0x55;
  ASSERT_TRUE(AtomicWriteFile(Path("shapes/images/3.png"), bytes).ok());
  const auto source = Open("list", Path("shapes/one.json"));
  EXPECT_EQ(TakeSurvey(*source, {}).bad, 1);
}

TEST_F(PackVerify, TheToolsAsAPersonRunsThem) {
  for (const char* tool : {"pack", "verify"}) {
    const ProcessResult help = Run(tool, {"--help"});
    EXPECT_EQ(help.code, 0) << help.output;
    for (const char* part :
         {"usage: ", "--list=FILE", "--shards=NAMES", "--max_bad_fraction=X"}) {
      EXPECT_TRUE(absl::StrContains(help.output, part)) << help.output;
    }
    EXPECT_EQ(Run(tool, {"--lits=x"}).code, 2);
    EXPECT_EQ(Run(tool, {}).code, 2);
  }
  const std::string list = "--list=" + Path("shapes/pairs.json");
  const ProcessResult packed =
      Run("pack", {list, "--out=" + Path("out"), "--shard_samples=10"});
  ASSERT_EQ(packed.code, 0) << packed.output;
  EXPECT_TRUE(absl::StrContains(packed.output, "40 samples in 4 shards"))
      << packed.output;
  EXPECT_TRUE(absl::StrContains(
      packed.output, "shards: \"" + Path("out/shard-{00000..00003}.tar")))
      << packed.output;
  const std::string shards = "--shards=" + Path("out/shard-{00000..00003}.tar");
  const ProcessResult good =
      Run("verify", {shards, "--html=" + Path("page.html"), "--title=shapes"});
  EXPECT_EQ(good.code, 0) << good.output;
  EXPECT_TRUE(absl::StrContains(good.output, "40 good, 0 bad")) << good.output;
  EXPECT_TRUE(absl::StrContains(*ReadFile(Path("page.html")),
                                "All samples can be used."));
  // 12 of 40 broken: more than is allowed.
  for (int i = 0; i < 12; ++i)
    ASSERT_TRUE(
        AtomicWriteFile(Path(absl::StrCat("shapes/images/", i, ".png")), "")
            .ok());
  ProcessResult bad = Run("verify", {list, "--bad_list=" + Path("bad.txt")});
  EXPECT_EQ(bad.code, 1) << bad.output;
  EXPECT_TRUE(absl::StrContains(bad.output, "Training would stop."))
      << bad.output;
  EXPECT_TRUE(absl::StrContains(*ReadFile(Path("bad.txt")), "record 11: "));
  EXPECT_EQ(Run("verify", {list, "--max_bad_fraction=0.5"}).code, 0);
  EXPECT_EQ(Run("verify", {"--list=/no/such.json"}).code, 1);
}

TEST_F(PackVerify, ADataSetOfAnExperiment) {
  setenv("SEMVQ_DATA", Path("shapes").c_str(), 1);
  const std::string config = Path("x.pbtxt");
  ASSERT_TRUE(
      AtomicWriteFile(config,
                      "name: 'x' data { streams { name: 'a' source { "
                      "[type.googleapis.com/semvq.AlbefJsonConfig] { path: "
                      "'${SEMVQ_DATA}/pairs.json' } } } max_pixels: 10 }")
          .ok());
  DatasetFlags flags;
  flags.Take("config", config);
  flags.Take("stream", "a");
  auto opened = flags.Open("test");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->source->size(), 40);
  EXPECT_EQ(opened->limits.max_pixels(), 10);
  flags.Take("stream", "b");
  EXPECT_TRUE(absl::StrContains(flags.Open("test").status().message(),
                                "expected one of a"));
  DatasetFlags wrong;
  wrong.Take("source", "[type.googleapis.com/semvq.Nothing] {}");
  EXPECT_TRUE(absl::StrContains(wrong.Open("test").status().message(),
                                "semvq.AlbefJsonConfig"));
  DatasetFlags two;
  two.Take("list", "a");
  two.Take("shards", "b");
  EXPECT_TRUE(absl::StrContains(two.Open("test").status().message(),
                                "got 2 data sets"));
}

}  // namespace
}  // namespace semvq::tools
