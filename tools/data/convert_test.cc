// The converters, on small folders of the sources' form, and the manifest.
#include <png.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tools/data/common.h"
#include "tools/data/easy_vqa.h"
#include "tools/data/emoji.h"
#include "tools/data/manifest.h"
#include "tools/data/prepare.h"
#include "tools/data/stamps.h"

namespace semvq::tools {
namespace {

namespace fs = std::filesystem;

std::string EncodePng(int width, int height, const std::string& rgba) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = PNG_FORMAT_RGBA;
  png_alloc_size_t size = 0;
  png_image_write_get_memory_size(image, size, 0, rgba.data(), 0, nullptr);
  std::string out(size, '\0');
  png_image_write_to_memory(&image, out.data(), &size, 0, rgba.data(), 0,
                            nullptr);
  out.resize(size);
  return out;
}

std::string Solid(int width, int height, char shade) {
  std::string rgba;
  for (int i = 0; i < width * height; ++i) {
    rgba += {shade, '\x20', '\x40', '\xff'};
  }
  return EncodePng(width, height, rgba);
}

bool Has(const absl::Status& status, const std::string& text) {
  return absl::StrContains(status.message(), text);
}

class ConvertTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = absl::StrCat(
        testing::TempDir(), "/",
        testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void Put(const std::string& path, const std::string& bytes) {
    const fs::path full = root_ + "/" + path;
    fs::create_directories(full.parent_path());
    std::ofstream(full, std::ios::binary) << bytes;
  }
  std::string Get(const std::string& path) {
    return ReadFile(root_ + "/" + path).value_or("(missing)");
  }
  void PutStamps() {
    for (int i = 0; i < 20; ++i) {
      const std::string stem = absl::StrCat("stamps/animals/a", i);
      Put(stem + ".png", Solid(4, 4, static_cast<char>(i)));
      Put(stem + ".txt", absl::StrCat("An animal ", i, ".\nfr.utf8=Un.\n"));
    }
  }
  void PutEasyVqa() {
    Put("site/easy_vqa-1.0.dist-info/LICENSE", "MIT License\n");
    Put("site/easy_vqa/data/answers.txt", "yes\nno\ncircle");
    std::string train = "[";
    for (int i = 0; i < 40; ++i) {
      Put(absl::StrCat("site/easy_vqa/data/train/images/", i, ".png"),
          Solid(2, 2, static_cast<char>(i)));
      absl::StrAppend(&train, i == 0 ? "" : ", ", "[\"is it?\", \"",
                      i % 4 == 0 ? "no" : "yes", "\", ", i,
                      "], [\"what?\", \"circle\", ", i, "]");
    }
    Put("site/easy_vqa/data/train/questions.json", train + "]");
    Put("site/easy_vqa/data/test/images/0.png", Solid(2, 2, 99));
    Put("site/easy_vqa/data/test/questions.json",
        "[[\"is it?\", \"yes\", 0], [\"is it?\", \"no\", 0], "
        "[\"what?\", \"circle\", 0], [\"new?\", \"circle\", 0]]");
  }
  PrepareOptions Options() {
    PrepareOptions options;
    options.out = root_ + "/out";
    options.sources = {"easy_vqa", "stamps"};
    options.stamps_dir = root_ + "/stamps";
    options.easy_vqa_dir = root_ + "/site";
    return options;
  }
  std::string root_;
};

TEST_F(ConvertTest, AnnotationsKeepNamesAndKeywords) {
  Put("en.xml",
      "<?xml version='1.0'?><!DOCTYPE ldml SYSTEM '../no/such.dtd'><ldml>"
      "<identity/><annotations>"
      "<annotation cp='🚀'>space | rocket</annotation>"
      "<annotation cp='🚀' type='tts'>rocket</annotation>"
      "<annotation cp='🇧🇦' type='tts'>flag: Bosnia &amp; Herzegovina"
      "</annotation></annotations></ldml>");
  const auto list = ReadAnnotations(root_ + "/en.xml");
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].name, "rocket");
  EXPECT_EQ((*list)[0].keywords, (std::vector<std::string>{"space", "rocket"}));
  EXPECT_EQ((*list)[1].name, "flag: Bosnia & Herzegovina");
  EXPECT_EQ((*list)[1].sequence, U"\U0001F1E7\U0001F1E6");
}

TEST_F(ConvertTest, BadAnnotationsNameTheLine) {
  const std::string path = root_ + "/en.xml";
  Put("en.xml", "<ldml>\n<annotations>\n<annotation cp='x'>\n");
  EXPECT_TRUE(Has(ReadAnnotations(path).status(), "en.xml:"));
  Put("en.xml",
      "<ldml><annotations>\n<annotation type='tts'>x</annotation>"
      "</annotations></ldml>");
  EXPECT_TRUE(Has(ReadAnnotations(path).status(), "en.xml:2:"));
  Put("en.xml",
      "<ldml><annotations><annotation cp='x' type='tts'>x</annotation>\n"
      "<annotation cp='x' type='tts'>y</annotation></annotations></ldml>");
  EXPECT_TRUE(Has(ReadAnnotations(path).status(), "en.xml:2: a second name"));
  Put("en.xml", "<svg/>");
  EXPECT_TRUE(Has(ReadAnnotations(path).status(), "expected a CLDR"));
}

// On the installed font: single code points, flags, joined families, skin
// tones; and what must not pass for one picture.
TEST_F(ConvertTest, EmojiSequencesBecomeOneGlyphOrAreCounted) {
  const auto line = [](const char* cp, const char* name) {
    return absl::StrCat("<annotation cp='", cp, "' type='tts'>", name,
                        "</annotation>");
  };
  Put("en.xml",
      absl::StrCat(
          "<ldml><annotations>", line("🚀", "rocket"),
          line("🇳🇴", "flag: Norway"), line("🇧🇻", "flag: Bouvet Island"),
          line("🏴󠁧󠁢󠁷󠁬󠁳󠁿", "flag: Wales"),
          line("👨‍👩‍👧", "family: man, woman, girl"),
          line("👩🏽‍🚀", "woman astronaut: medium skin tone"),
          line("{", "open curly bracket"),
          line("🚀‍🚀", "two rockets joined"), "</annotations></ldml>"));
  EmojiOptions options;
  options.annotations = {root_ + "/en.xml"};
  ASSERT_TRUE(FindEmojiInputs(&options).ok()) << FindEmojiInputs(&options);
  OutputFolder out(root_ + "/out");
  std::vector<Pair> pairs;
  const auto stats = ConvertEmoji(options, &out, &pairs);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->names, 8);
  EXPECT_EQ(stats->found, 6);
  EXPECT_EQ(stats->no_glyph, 1);
  EXPECT_EQ(stats->several, 1);
  EXPECT_EQ(stats->repeated_image, 1);  // Bouvet Island flies Norway's flag
  ASSERT_EQ(pairs.size(), 6u);
  EXPECT_EQ(pairs[1].image, "images/emoji/1f1f3_1f1f4.png");
  for (const Pair& pair : pairs) {
    const std::string bytes = Get("out/" + pair.image);
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    ASSERT_TRUE(
        png_image_begin_read_from_memory(&image, bytes.data(), bytes.size()))
        << pair.caption << ": " << image.message;
    EXPECT_EQ(image.width, 136u);
    EXPECT_EQ(image.height, 128u);
    EXPECT_TRUE(image.format & PNG_FORMAT_FLAG_ALPHA) << pair.caption;
    png_image_free(&image);
  }
}

TEST_F(ConvertTest, FontWithoutBitmapsIsRefused) {
  Put("font.ttf", "not a font");
  EmojiOptions options;
  options.font = root_ + "/font.ttf";
  OutputFolder out(root_ + "/out");
  std::vector<Pair> pairs;
  EXPECT_TRUE(
      Has(ConvertEmoji(options, &out, &pairs).status(), "no colour bitmaps"));
  options.font = root_ + "/none.ttf";
  EXPECT_TRUE(Has(ConvertEmoji(options, &out, &pairs).status(),
                  "fonts-noto-color-emoji"));
}

TEST_F(ConvertTest, StampsAreCopiedAndTheOddOnesCounted) {
  const std::string png = Solid(6, 3, 50);
  Put("stamps/food/pear.png", png);
  Put("stamps/food/pear.txt",
      "\xEF\xBB\xBF"
      "A pear.\r\nfr.utf8=Une poire.\r\n");
  Put("stamps/food/pear_mirror.png", png);  // no text
  Put("stamps/food/fig.png", png);
  Put("stamps/food/fig.txt", "fr.utf8=Une figue.\n");  // no English
  Put("stamps/food/nut.png", "GIF89a");
  Put("stamps/food/nut.txt", "A nut.\n");
  Put("stamps/food/oat.png", png);
  Put("stamps/food/oat.txt", "An \xff oat.\n");  // not UTF-8
  Put("stamps/food/pea.svg", "<svg/>");
  Put("stamps/food/pea.txt", "A pea.\n");
  OutputFolder out(root_ + "/out");
  std::vector<Pair> pairs;
  const auto stats = ConvertStamps(root_ + "/stamps", &out, &pairs);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->images, 5);
  EXPECT_EQ(stats->found, 1);
  EXPECT_EQ(stats->no_caption, 1);
  EXPECT_EQ(stats->bad_caption, 2);
  EXPECT_EQ(stats->bad_image, 1);
  EXPECT_EQ(stats->vector_only, 1);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].caption, "A pear.");
  EXPECT_EQ(pairs[0].image_id, "stamps/food/pear");
  EXPECT_EQ(Get("out/images/stamps/food/pear.png"), png);
  EXPECT_TRUE(Has(ConvertStamps(root_ + "/none", &out, &pairs).status(),
                  "tuxpaint-stamps-default"));
}

TEST_F(ConvertTest, ReductionKeepsAlphaAndDoesNotBleed) {
  // Columns alternate opaque red and transparent green: green must not show.
  std::string rgba;
  for (int i = 0; i < 600 * 300; ++i) {
    rgba += i % 2 == 0 ? std::string("\xff\x00\x00\xff", 4)
                       : std::string("\x00\xff\x00\x00", 4);
  }
  bool reduced = false;
  const auto png = ReducePng(EncodePng(600, 300, rgba), 512, 300, &reduced);
  ASSERT_TRUE(png.ok()) << png.status();
  EXPECT_TRUE(reduced);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(
      png_image_begin_read_from_memory(&image, png->data(), png->size()));
  EXPECT_EQ(image.width, 300u);
  EXPECT_EQ(image.height, 150u);
  image.format = PNG_FORMAT_RGBA;
  std::vector<png_byte> out(PNG_IMAGE_SIZE(image));
  ASSERT_TRUE(png_image_finish_read(&image, nullptr, out.data(), 0, nullptr));
  for (size_t i = 0; i < out.size(); i += 4) {
    ASSERT_EQ(out[i], 255);
    ASSERT_EQ(out[i + 1], 0);
    ASSERT_EQ(out[i + 3], 128);
  }
  const std::string small = Solid(512, 2, 1);
  EXPECT_EQ(*ReducePng(small, 512, 256, &reduced), small);
  EXPECT_FALSE(reduced);
  EXPECT_FALSE(
      ReducePng(EncodePng(600, 300, rgba).substr(0, 400), 512, 256, &reduced)
          .ok());
}

TEST_F(ConvertTest, EasyVqaSplitsByImageAndMeasuresItsBaselines) {
  PutEasyVqa();
  OutputFolder out(root_ + "/out");
  const auto data = ConvertEasyVqa(root_ + "/site", &out);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train.size() + data->val.size(), 80u);
  EXPECT_GT(data->val.size(), 0u);
  for (const VqaRecord& held_out : data->val) {
    for (const VqaRecord& trained : data->train) {
      ASSERT_NE(held_out.image_id, trained.image_id);
    }
  }
  EXPECT_EQ(data->answers, (std::vector<std::string>{"circle", "no", "yes"}));
  EXPECT_EQ(data->test[1].question_id, kFirstTestQuestion + 1);
  EXPECT_EQ(data->majority_answer, "circle");
  EXPECT_DOUBLE_EQ(data->majority_accuracy, 0.5);
  EXPECT_DOUBLE_EQ(data->question_only_accuracy, 0.75);
  EXPECT_EQ(EasyVqaVersion(*FindEasyVqa(root_ + "/site")), "1.0");
}

TEST_F(ConvertTest, BadEasyVqaNamesTheRecord) {
  PutEasyVqa();
  OutputFolder out(root_ + "/out");
  const std::string questions = "site/easy_vqa/data/test/questions.json";
  Put(questions, "[[\"a?\", \"yes\", 0], [\"b?\", \"yes\"]]");
  EXPECT_TRUE(Has(ConvertEasyVqa(root_ + "/site", &out).status(), "record 1"));
  Put(questions, "[[\"a?\", \"perhaps\", 0]]");
  EXPECT_TRUE(Has(ConvertEasyVqa(root_ + "/site", &out).status(), "perhaps"));
  Put(questions, "{}");
  EXPECT_TRUE(
      Has(ConvertEasyVqa(root_ + "/site", &out).status(), "a JSON list"));
  Put(questions, "[[\"a?\", \"yes\", 7]]");
  EXPECT_TRUE(Has(ConvertEasyVqa(root_ + "/site", &out).status(), "7.png"));
}

TEST_F(ConvertTest, SecondRunVerifiesAndDamageIsRepaired) {
  PutStamps();
  PutEasyVqa();
  const auto first = Prepare(Options());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->already_complete);
  const std::string train = Get("out/pairs_train.json");
  const std::string manifest = Get("out/manifest.json");
  EXPECT_TRUE(absl::StrContains(Get("out/LICENSES.txt"), "MIT License"));

  const auto second = Prepare(Options());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->already_complete);

  Put("out/images/easy_vqa/train/3.png", "damaged");
  fs::remove(root_ + "/out/pairs_train.json");
  const auto third = Prepare(Options());
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_FALSE(third->already_complete);
  EXPECT_EQ(Get("out/pairs_train.json"), train);
  EXPECT_EQ(Get("out/manifest.json"), manifest);
  EXPECT_EQ(Get("out/images/easy_vqa/train/3.png"), Solid(2, 2, 3));

  Put("out/manifest.json", manifest.substr(0, manifest.size() / 2));
  const auto fourth = Prepare(Options());
  ASSERT_TRUE(fourth.ok()) << fourth.status();
  EXPECT_FALSE(fourth->already_complete);
}

TEST_F(ConvertTest, ManifestListsEveryFileWithItsHash) {
  PutStamps();
  PutEasyVqa();
  ASSERT_TRUE(Prepare(Options()).ok());
  const auto manifest = ReadManifest(root_ + "/out");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  size_t found = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root_ + "/out")) {
    const std::string path =
        entry.path().lexically_relative(root_ + "/out").string();
    if (!entry.is_regular_file() || path == "manifest.json" ||
        path == ".lock") {
      continue;
    }
    ++found;
    ASSERT_EQ(manifest->files.count(path), 1u) << path;
    EXPECT_EQ(manifest->files.at(path), Sha256Hex(Get("out/" + path)));
  }
  EXPECT_EQ(found, manifest->files.size());
  EXPECT_EQ(manifest->counts.at("stamps_found"), 20);
  EXPECT_EQ(manifest->versions.at("easy-vqa"), "1.0");
}

TEST_F(ConvertTest, OtherSelectionsAndMissingInputsAreExplained) {
  PutStamps();
  PutEasyVqa();
  ASSERT_TRUE(Prepare(Options()).ok());
  // A part of what is there is there.
  PrepareOptions part = Options();
  part.sources = {"stamps"};
  ASSERT_TRUE(Prepare(part).ok());
  EXPECT_TRUE(Prepare(part)->already_complete);
  // Rebuilding it alone would lose the rest.
  part.force = true;
  EXPECT_EQ(Prepare(part).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(Get("out/easy_vqa_test.json"), "(missing)");

  PrepareOptions missing = Options();
  missing.out = root_ + "/other";
  missing.easy_vqa_dir = root_ + "/nowhere";
  EXPECT_TRUE(Has(Prepare(missing).status(), "pip install"));
  EXPECT_FALSE(fs::exists(root_ + "/other/manifest.json"));

  // Nor does a rebuild that cannot succeed take away what is there.
  missing.out = root_ + "/out";
  missing.force = true;
  EXPECT_FALSE(Prepare(missing).ok());
  EXPECT_TRUE(Prepare(Options())->already_complete);

  PrepareOptions blocked = Options();
  blocked.out = root_ + "/stamps/animals/a1.png/out";
  EXPECT_TRUE(Has(Prepare(blocked).status(), "--out"));
}

TEST_F(ConvertTest, ExpectedHashesAreCompared) {
  PutStamps();
  PutEasyVqa();
  PrepareOptions options = Options();
  ASSERT_TRUE(Prepare(options).ok());
  const auto files = ReadManifest(options.out)->files;
  options.expected = root_ + "/expected";
  Put("expected",
      absl::StrCat("# some package 1\n", files.at("pairs_train.json"),
                   "  pairs_train.json\n"));
  EXPECT_TRUE(absl::StrContains(Prepare(options)->summary, "1 lists equal"));
  Put("expected", "# some package 1\n00ff  pairs_train.json\n");
  EXPECT_TRUE(
      absl::StrContains(Prepare(options)->summary, "pairs_train.json differ"));
}

TEST_F(ConvertTest, DebianVersionsComeFromTheStatusFile) {
  Put("status",
      "Package: a-b\nVersion: 1\n\nPackage: a\nStatus: x\nVersion: 2-3\n");
  EXPECT_EQ(DebianVersion("a", root_ + "/status"), "2-3");
  EXPECT_EQ(DebianVersion("b", root_ + "/status"), "unknown");
  EXPECT_EQ(DebianVersion("a", root_ + "/none"), "unknown");
}

}  // namespace
}  // namespace semvq::tools
