// The sets in the benchmarks' formats: what their docs promise of them.
#include "tools/data/benchmarks.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "simdjson.h"
#include "tools/data/dice.h"
#include "tools/data/picture.h"

namespace semvq::tools {
namespace {

namespace fs = std::filesystem;
namespace dom = simdjson::dom;

std::string Text(dom::element value, const char* key) {
  std::string_view text;
  EXPECT_FALSE(value[key].get(text)) << key;
  return std::string(text);
}

int64_t Int(dom::element value, const char* key) {
  int64_t number = -1;
  EXPECT_FALSE(value[key].get(number)) << key;
  return number;
}

class BenchmarksTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = absl::StrCat(
        testing::TempDir(), "/",
        testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
    out_ = std::make_unique<OutputFolder>(root_);
  }

  // Pictures of `each` subjects of every kind, with a transparent rim.
  SubjectPools MakePools(int each) {
    SubjectPools pools;
    int shade = 0;
    for (auto* pool : {&pools.trained, &pools.unseen}) {
      const char* name = pool == &pools.trained ? "t" : "u";
      for (size_t k = 0; k < Kinds().size(); ++k) {
        for (int i = 0; i < each; ++i) {
          Subject subject;
          subject.name = absl::StrCat(name, "word", k, "x", i);
          subject.image_id = absl::StrCat("emoji/", subject.name);
          subject.image = absl::StrCat("images/emoji/", subject.name, ".png");
          subject.kind = static_cast<int>(k);
          Picture picture(34, 32, 0, 0, 0);
          std::fill(picture.rgba.begin(), picture.rgba.end(), uint8_t{0});
          Paste(Picture(26, 24, static_cast<uint8_t>(++shade), 90, 200), 4, 4,
                &picture);
          EXPECT_TRUE(
              out_->Write(subject.image, *EncodePng(picture, false)).ok());
          pool->push_back(subject);
        }
      }
    }
    return pools;
  }

  SetReport Report() { return {&counts_, &summary_}; }

  std::string Get(const std::string& path) {
    return ReadFile(root_ + "/" + path).value_or("");
  }

  void ForEachLine(const std::string& path,
                   const std::function<void(dom::element)>& visit) {
    dom::parser parser;
    for (const absl::string_view line :
         absl::StrSplit(Get(path), '\n', absl::SkipEmpty())) {
      dom::element value;
      ASSERT_FALSE(parser.parse(std::string(line)).get(value)) << line;
      visit(value);
    }
  }

  dom::element Parse(const std::string& path) {
    dom::element value;
    EXPECT_FALSE(parser_.parse(Get(path)).get(value)) << path;
    return value;
  }

  std::string root_, summary_;
  std::unique_ptr<OutputFolder> out_;
  Counts counts_;
  dom::parser parser_;
};

// What a model that sees only `key` of an example can get right at most.
class BestWithout {
 public:
  void Add(const std::string& key, const std::string& label) {
    ++counts_[key][label];
    ++total_;
  }
  double Accuracy() const {
    int right = 0;
    for (const auto& [key, labels] : counts_) {
      int most = 0;
      for (const auto& [label, n] : labels) most = std::max(most, n);
      right += most;
    }
    return static_cast<double>(right) / total_;
  }

 private:
  std::map<std::string, std::map<std::string, int>> counts_;
  int total_ = 0;
};

TEST_F(BenchmarksTest, Nlvr2TellsNothingWithoutBothPicturesAndTheSentence) {
  const SubjectPools pools = MakePools(12);
  ASSERT_TRUE(MakeNlvr2(pools, out_.get(), Report()).ok());
  std::map<std::string, int> kind_of;
  for (const auto* pool : {&pools.trained, &pools.unseen}) {
    for (const Subject& s : *pool) kind_of[s.name] = s.kind;
  }
  std::set<std::string> trained_pairs;
  for (const std::string part : {"train", "dev", "test1", "unseen"}) {
    SCOPED_TRACE(part);
    BestWithout sentence, pictures, left, right;
    std::map<std::string, int> by_consistency;
    std::set<std::string> identifiers;
    int n = 0;
    ForEachLine(absl::StrCat("nlvr2_", part, ".jsonl"), [&](dom::element e) {
      ++n;
      const std::string text = Text(e, "sentence"), label = Text(e, "label"),
                        l = Text(e, "left"), r = Text(e, "right"),
                        id = Text(e, "identifier");
      const std::vector<std::string> parts = absl::StrSplit(id, '-');
      ASSERT_EQ(parts.size(), 4u);
      EXPECT_EQ(parts[0], part);
      EXPECT_TRUE(identifiers.insert(id).second) << id;
      ++by_consistency[parts[1] + "-" + parts[3]];
      // Within a set, where the four pairs are all of 2 x 2 pictures, nothing
      // but all three inputs together helps; a fortiori over sets.
      sentence.Add(text, label);
      pictures.Add(parts[1] + l + r, label);
      left.Add(parts[1] + text + l, label);
      right.Add(parts[1] + text + r, label);
      // The label is what the kinds say.
      const bool exactly_one = absl::StartsWith(text, "exactly one");
      int kind = -1;
      for (size_t k = 0; k < Kinds().size(); ++k) {
        if (absl::EndsWith(text, absl::StrCat(" ", Kinds()[k].phrase))) {
          kind = static_cast<int>(k);
        }
      }
      ASSERT_GE(kind, 0) << text;
      const int showing = (kind_of.at(l) == kind) + (kind_of.at(r) == kind);
      EXPECT_EQ(label == "True", (showing == 1) == exactly_one) << id;
      // The pictures lie where the official names say, and are the emoji.
      const std::string folder = absl::StrCat(
          "images/nlvr2/", part, "/",
          part == "train" ? absl::StrCat(Int(e, "directory"), "/") : "", part,
          "-", parts[1], "-", parts[2]);
      EXPECT_EQ(Get(folder + "-img0.png"), Get("images/emoji/" + l + ".png"));
      EXPECT_EQ(Get(folder + "-img1.png"), Get("images/emoji/" + r + ".png"));
      EXPECT_EQ(absl::StartsWith(l, "u"), part == "unseen");
      if (part == "train") {
        trained_pairs.insert(l + " " + r);
      } else {
        EXPECT_EQ(trained_pairs.count(l + " " + r), 0u);
      }
    });
    EXPECT_GT(n, 100);
    EXPECT_EQ(counts_.at("nlvr2_" + part), n);
    for (const auto& [key, examples] : by_consistency) EXPECT_EQ(examples, 4);
    EXPECT_EQ(sentence.Accuracy(), 0.5);
    EXPECT_EQ(pictures.Accuracy(), 0.5);
    EXPECT_EQ(left.Accuracy(), 0.5);
    EXPECT_EQ(right.Accuracy(), 0.5);
  }
}

// One caption for a kind, of the training part's pictures alone.
TEST_F(BenchmarksTest, Nlvr2PicturesAreTheTrainingPartsWithTheirKinds) {
  const SubjectPools pools = MakePools(12);
  ASSERT_TRUE(MakeNlvr2(pools, out_.get(), Report()).ok());
  std::map<std::string, int> kind_of;  // By picture.
  for (const Subject& s : pools.trained) kind_of[s.image] = s.kind;
  std::set<std::string> shown, listed;
  ForEachLine("nlvr2_train.jsonl", [&](dom::element e) {
    for (const char* side : {"left", "right"}) {
      shown.insert(absl::StrCat("images/emoji/", Text(e, side), ".png"));
    }
  });
  dom::array records;
  ASSERT_FALSE(Parse("nlvr2_train_pictures.json").get(records));
  for (const dom::element record : records) {
    const std::string image = Text(record, "image");
    EXPECT_TRUE(listed.insert(image).second) << image;
    ASSERT_EQ(kind_of.count(image), 1u) << image;
    const std::string phrase = Kinds()[kind_of.at(image)].phrase;
    EXPECT_EQ(Text(record, "caption"), "the picture shows " + phrase);
    EXPECT_EQ(Text(record, "image_id"), phrase);
  }
  EXPECT_EQ(listed, shown);
  EXPECT_EQ(counts_.at("nlvr2_train_pictures"),
            static_cast<int64_t>(shown.size()));
}

TEST_F(BenchmarksTest, SnliVeTellsNothingWithoutPictureAndSentence) {
  const SubjectPools pools = MakePools(5);
  ASSERT_TRUE(MakeSnliVe(pools, out_.get(), Report()).ok());
  std::map<std::string, int> kind_of;
  for (const auto* pool : {&pools.trained, &pools.unseen}) {
    for (const Subject& s : *pool) kind_of[s.name] = s.kind;
  }
  for (const std::string part : {"train", "dev", "test", "unseen"}) {
    SCOPED_TRACE(part);
    BestWithout sentence, picture;
    std::set<std::string> pairs;
    int n = 0;
    ForEachLine(absl::StrCat("snli_ve_", part, ".jsonl"), [&](dom::element e) {
      ++n;
      const std::string text = Text(e, "sentence2"),
                        label = Text(e, "gold_label"),
                        id = Text(e, "Flickr30K_ID"),
                        premise = Text(e, "sentence1");
      EXPECT_TRUE(pairs.insert(Text(e, "pairID")).second);
      EXPECT_EQ(Text(e, "captionID"), id + ".jpg#0");
      sentence.Add(text, label);
      picture.Add(id, label);
      // The label is what the premise says of the place in question.
      const bool top = absl::EndsWith(text, " at the top");
      const std::string name = premise.substr(0, premise.find(' '));
      const bool shown_at_top = absl::StartsWith(premise, name + " at the top");
      int kind = -1;
      for (size_t k = 0; k < Kinds().size(); ++k) {
        if (absl::StrContains(text,
                              absl::StrCat(" ", Kinds()[k].phrase, " at "))) {
          kind = static_cast<int>(k);
        }
      }
      ASSERT_GE(kind, 0) << text;
      const char* expected = top != shown_at_top        ? "neutral"
                             : kind_of.at(name) == kind ? "entailment"
                                                        : "contradiction";
      EXPECT_EQ(label, expected) << premise << " / " << text;
      EXPECT_EQ(absl::StartsWith(name, "u"), part == "unseen");
    });
    EXPECT_GT(n, 100);
    EXPECT_EQ(counts_.at("snli_ve_" + part), n);
    EXPECT_DOUBLE_EQ(sentence.Accuracy(), 1.0 / 3);
    EXPECT_DOUBLE_EQ(picture.Accuracy(), 1.0 / 3);
  }
  // What the training pictures' premises, and what is entailed, say of the
  // emoji, once each.
  std::map<std::string, std::pair<std::string, std::string>> known, captions;
  ForEachLine("snli_ve_train.jsonl", [&](dom::element e) {
    auto& [name, kind] =
        known["images/snli_ve/" + Text(e, "Flickr30K_ID") + ".png"];
    name = Text(e, "sentence1")
               .substr(0, Text(e, "sentence1").find(" and a cover"));
    if (Text(e, "gold_label") == "entailment")
      kind = Text(e, "sentence2").substr(std::string("there is ").size());
  });
  dom::array records;
  ASSERT_FALSE(Parse("snli_ve_train_captions.json").get(records));
  for (const dom::element record : records) {
    const dom::element both = record["caption"];
    const std::pair<std::string, std::string> texts(
        both.at(0).get_string().value(), both.at(1).get_string().value());
    EXPECT_TRUE(captions.emplace(Text(record, "image"), texts).second);
  }
  EXPECT_EQ(captions, known);
  // The emoji is in the half that the premise names, the cover in the other.
  int line = 0;
  ForEachLine("snli_ve_dev.jsonl", [&](dom::element e) {
    if (line++ % 5 != 0) return;
    const auto png =
        DecodePng(Get("images/snli_ve/" + Text(e, "Flickr30K_ID") + ".png"));
    ASSERT_TRUE(png.ok());
    const bool top = absl::StrContains(Text(e, "sentence1"), " at the top and");
    int grey = 0, blue = 0;
    for (int y = 0; y < png->height; ++y) {
      for (int x = 0; x < png->width; ++x) {
        const uint8_t* p = &png->rgba[4 * (y * png->width + x)];
        const bool upper = y < png->height / 2;
        if (p[0] == 128 && p[1] == 128 && p[2] == 128) {
          ++grey;
          EXPECT_NE(upper, top);
        } else if (p[1] == 90) {
          ++blue;
          EXPECT_EQ(upper, top);
        }
      }
    }
    EXPECT_GT(grey, 1000);
    EXPECT_GT(blue, 500);
  });
}

TEST_F(BenchmarksTest, ScenesHoldWhatTheirBoxesSay) {
  ASSERT_TRUE(MakeGrounding(MakePools(4), out_.get(), Report()).ok());
  std::set<int64_t> ids;
  for (const std::string part : {"train", "val", "test", "unseen"}) {
    SCOPED_TRACE(part);
    struct Query {
      std::string image, text;
    };
    std::map<int64_t, Query> queries;
    for (const dom::element e :
         Parse("grounding_" + part + ".json").get_array()) {
      const int64_t id = Int(e, "ref_id");
      EXPECT_TRUE(ids.insert(id).second) << id;
      queries[id] = {Text(e, "image"), Text(e, "text")};
    }
    EXPECT_GT(queries.size(), 100u);
    EXPECT_EQ(counts_.at("grounding_" + part),
              static_cast<int64_t>(queries.size()));
    std::map<std::string, std::vector<Box>> scenes;
    size_t boxes = 0;
    std::string decoded;  // The image that `png` holds.
    absl::StatusOr<Picture> png;
    for (const dom::element e :
         Parse("grounding_" + part + "_boxes.json").get_array()) {
      ++boxes;
      const Query& query = queries.at(Int(e, "ref_id"));
      const auto read = [](dom::element list) {
        Box box;
        int* fields[] = {&box.x, &box.y, &box.w, &box.h};
        int i = 0;
        for (const dom::element value : list.get_array()) {
          if (i < 4) *fields[i] = static_cast<int>(int64_t{value.get_int64()});
          ++i;
        }
        EXPECT_EQ(i, 4);
        return box;
      };
      const int64_t width = Int(e, "width"), height = Int(e, "height");
      const Box box = read(e["box"].value());
      scenes[query.image].push_back(box);
      int hits = 0, count = 0;
      for (const dom::element p : e["proposals"].get_array()) {
        const Box proposal = read(p);
        EXPECT_GE(proposal.x, 0);
        EXPECT_GE(proposal.y, 0);
        EXPECT_GT(proposal.w, 0);
        EXPECT_GT(proposal.h, 0);
        EXPECT_LE(proposal.x + proposal.w, width);
        EXPECT_LE(proposal.y + proposal.h, height);
        hits += Iou(proposal, box) >= 0.5;
        ++count;
      }
      EXPECT_EQ(hits, 1);  // One proposal is right, and not all of them.
      EXPECT_GE(count, 4);
      EXPECT_LE(count, 18);
      // The box is tight: nothing but white around it, colour at its rim.
      if (query.image != decoded) {
        png = DecodePng(Get(query.image));
        ASSERT_TRUE(png.ok());
        decoded = query.image;
      }
      EXPECT_EQ(png->width, width);
      const auto is_white = [&](int x, int y) {
        if (x < 0 || y < 0 || x >= png->width || y >= png->height) return true;
        const uint8_t* p = &png->rgba[4 * (y * png->width + x)];
        return p[0] > 200 && p[1] > 200 && p[2] > 200;
      };
      const int cx = box.x + box.w / 2, cy = box.y + box.h / 2;
      EXPECT_FALSE(is_white(cx, cy));
      EXPECT_FALSE(is_white(box.x + 1, cy) || is_white(cx, box.y + 1));
      EXPECT_TRUE(is_white(box.x - 1, cy) && is_white(cx, box.y - 1) &&
                  is_white(box.x + box.w, cy) && is_white(cx, box.y + box.h));
    }
    EXPECT_EQ(boxes, queries.size());
    for (const auto& [image, objects] : scenes) {
      for (size_t a = 0; a < objects.size(); ++a) {
        for (size_t b = 0; b < a; ++b)
          EXPECT_EQ(Iou(objects[a], objects[b]), 0);
      }
      if (part == "train") {
        EXPECT_GE(objects.size(), 4u);
        EXPECT_LE(objects.size(), 9u);
      }
    }
    if (part == "train") {
      size_t captions = 0;
      for (const dom::element e :
           Parse("grounding_train_captions.json").get_array()) {
        ++captions;
        const std::string caption = Text(e, "caption");
        EXPECT_TRUE(absl::StrContains(caption, " and "));
        EXPECT_EQ(scenes.at(Text(e, "image")).size(),
                  std::count(caption.begin(), caption.end(), ',') + 2u);
      }
      EXPECT_EQ(captions, scenes.size());
    }
  }
}

TEST_F(BenchmarksTest, VqaV2SaysTheSameAsTheList) {
  EasyVqa data;
  data.train = {{"images/easy_vqa/train/17.png", "easy_vqa/train/17",
                 "what color is the shape?", "red", 41},
                {"images/easy_vqa/train/17.png", "easy_vqa/train/17",
                 "is there not a \"circle\"?", "no", 42}};
  data.test = {{"images/easy_vqa/test/3.png", "easy_vqa/test/3", "why?", "red",
                kFirstTestQuestion}};
  ASSERT_TRUE(MakeVqaV2(data, out_.get(), Report()).ok());
  EXPECT_EQ(counts_.at("v2_easy_vqa_train"), 2);
  std::vector<std::string> questions;
  for (const dom::element q :
       Parse("v2_easy_vqa_train_questions.json")["questions"].get_array()) {
    questions.push_back(absl::StrCat(Int(q, "question_id"), " ",
                                     Int(q, "image_id"), " ",
                                     Text(q, "question")));
  }
  EXPECT_EQ(questions,
            (std::vector<std::string>{"41 17 what color is the shape?",
                                      "42 17 is there not a \"circle\"?"}));
  std::vector<std::string> annotations;
  for (const dom::element a :
       Parse("v2_easy_vqa_train_annotations.json")["annotations"].get_array()) {
    annotations.push_back(
        absl::StrCat(Int(a, "question_id"), " ", Int(a, "image_id"), " ",
                     Text(a, "question_type"), ", ", Text(a, "answer_type"),
                     ", ", Text(a, "multiple_choice_answer")));
    int64_t n = 0;
    for (const dom::element answer : a["answers"].get_array()) {
      EXPECT_EQ(Int(answer, "answer_id"), ++n);
      EXPECT_EQ(Text(answer, "answer"), Text(a, "multiple_choice_answer"));
    }
    EXPECT_EQ(n, 10);
  }
  EXPECT_EQ(annotations,
            (std::vector<std::string>{"41 17 what color is the, other, red",
                                      "42 17 is there, yes/no, no"}));
  dom::element empty = Parse("v2_easy_vqa_val_questions.json");
  EXPECT_EQ(empty["questions"].get_array().size(), 0u);
  EXPECT_EQ(Text(empty, "data_subtype"), "val");
  EXPECT_EQ(Text(empty, "task_type"), "Open-Ended");
}

TEST(QuestionTypeTest, LongestOfficialPrefix) {
  EXPECT_EQ(QuestionType("is there a red shape?"), "is there a");
  EXPECT_EQ(QuestionType("is there an x?"), "is there");
  EXPECT_EQ(QuestionType("is no circle present?"), "is");
  EXPECT_EQ(QuestionType("isn't it?"), "none of the above");
  EXPECT_EQ(QuestionType("what is the color of the shape?"),
            "what is the color of the");
  EXPECT_EQ(QuestionType("what is the red shape?"), "what is the");
  EXPECT_EQ(QuestionType("what shape is in the image?"), "what");
  EXPECT_EQ(QuestionType("does the image contain a circle?"), "does the");
  EXPECT_EQ(QuestionType("what?"), "what");
  EXPECT_EQ(QuestionType(""), "none of the above");
}

TEST_F(BenchmarksTest, CocoCaptions) {
  Pair pair;
  pair.image = "images/emoji/a.png";
  pair.caption = "a \"cat\"";
  pair.source = "emoji";
  ASSERT_TRUE(
      out_->Write(pair.image, *EncodePng(Picture(5, 7, 1, 2, 3), true)).ok());
  Pair stamp = pair;
  stamp.source = "stamps";
  ASSERT_TRUE(
      MakeCocoCaptions("val", {pair, stamp}, 30, out_.get(), Report()).ok());
  EXPECT_EQ(counts_.at("captions_val"), 2);
  const dom::element root = Parse("captions_val.json");
  const dom::element image = root["images"].at(0).value();
  EXPECT_EQ(Int(image, "id"), 30);
  EXPECT_EQ(Int(image, "width"), 5);
  EXPECT_EQ(Int(image, "height"), 7);
  EXPECT_EQ(Text(image, "file_name"), pair.image);
  const dom::element caption = root["annotations"].at(1).value();
  EXPECT_EQ(Int(caption, "image_id"), 31);
  EXPECT_EQ(Text(caption, "caption"), "a \"cat\"");
  EXPECT_NE(Int(image, "license"),
            Int(root["images"].at(1).value(), "license"));
  pair.image = "images/none.png";
  EXPECT_FALSE(MakeCocoCaptions("x", {pair}, 1, out_.get(), Report()).ok());
}

// The same sets, byte for byte, in a second folder.
TEST_F(BenchmarksTest, AreTheSameEveryTime) {
  const SubjectPools pools = MakePools(3);
  const auto make = [&](OutputFolder* out) {
    EXPECT_TRUE(MakeNlvr2(pools, out, Report()).ok());
    EXPECT_TRUE(MakeSnliVe(pools, out, Report()).ok());
    EXPECT_TRUE(MakeGrounding(pools, out, Report()).ok());
  };
  make(out_.get());
  OutputFolder other(root_ + "/other");
  for (const auto* pool : {&pools.trained, &pools.unseen}) {
    for (const Subject& s : *pool) {
      ASSERT_TRUE(other.Write(s.image, Get(s.image)).ok());
    }
  }
  make(&other);
  EXPECT_EQ(out_->files(), other.files());
}

TEST_F(BenchmarksTest, LinksShareTheFile) {
  ASSERT_TRUE(out_->Write("a/x.png", "bytes").ok());
  ASSERT_TRUE(out_->Link("a/x.png", "b/c/y.png").ok());
  struct stat a, b;
  ASSERT_EQ(stat((root_ + "/a/x.png").c_str(), &a), 0);
  ASSERT_EQ(stat((root_ + "/b/c/y.png").c_str(), &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(out_->files().at("b/c/y.png"), out_->files().at("a/x.png"));
  EXPECT_EQ(out_->BytesUnder(""), 5);
  EXPECT_FALSE(out_->Link("a/none.png", "b/z.png").ok());
  EXPECT_FALSE(out_->Link("a/x.png", "b/c/y.png").ok());
  // A second run finds the first one's links, and leaves nothing beside them.
  OutputFolder again(root_);
  ASSERT_TRUE(again.Write("a/x.png", "other").ok());
  ASSERT_TRUE(again.Link("a/x.png", "b/c/y.png").ok());
  ASSERT_TRUE(again.Link("a/x.png", "b/c/w.png").ok());
  EXPECT_EQ(Get("b/c/y.png"), "other");
  EXPECT_FALSE(fs::exists(root_ + "/b/c/y.png.partial"));
}

TEST_F(BenchmarksTest, LabelsOfCharactersRangesAndSequences) {
  const std::string path = root_ + "/labels.txt";
  const auto put = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  };
  put("# comment\n\n[🐀-🐂{👩‍🚀}☺️]\t;\tAnimals ; "
      "animal-mammal\n[🐁] "
      "; "
      "Other\n");
  const auto labels = ReadLabels(path);
  ASSERT_TRUE(labels.ok()) << labels.status();
  ASSERT_EQ(labels->size(), 5u);
  EXPECT_EQ(labels->at(U"\U0001F402").second, "animal-mammal");
  EXPECT_EQ(labels->at(U"\U0001F401").first, "Animals");
  EXPECT_EQ(labels->count(U"\U0001F469\u200D\U0001F680"), 1u);
  EXPECT_EQ(labels->count(U"\u263A"), 1u);
  const std::pair<const char*, const char*> bad[] = {
      {"\n🐀 ; a", "labels.txt:2: expected a set"},
      {"[🐀]", "no label"},
      {"[{🐀] ; a", "a { without its }"},
      {"[🐂-🐀] ; a", "backwards"},
      {"[\\u0041] ; a", "escapes"},
      {"[\xFF] ; a", "UTF-8"},
      {"# nothing\n", "holds no labels"}};
  for (const auto& [text, part] : bad) {
    put(text);
    const absl::Status status = ReadLabels(path).status();
    EXPECT_TRUE(absl::StrContains(status.message(), part)) << status;
  }
  EXPECT_FALSE(ReadLabels(root_ + "/none.txt").ok());
}

TEST(SubjectsTest, OneForEachConcept) {
  const Labels labels = {
      {U"\U0001F680", {"Travel & Places", "transport-air"}},
      {U"\U0001F469\u200D\U0001F680", {"Smileys & People", "person-role"}},
      {U"\U0001F3FB", {"Smileys & People", "skin-tone"}},
      {U"\u231A", {"Objects", "no kind of ours"}}};
  const auto pair = [](const std::string& id, const std::string& caption,
                       const std::string& concept_name,
                       const std::string& source = "emoji") {
    Pair p;
    p.image_id = id;
    p.image = "images/" + id + ".png";
    p.caption = caption;
    p.concept_name = concept_name;
    p.source = source;
    return p;
  };
  const auto subjects =
      Subjects({pair("emoji/1f469_200d_1f680", "woman astronaut", "c"),
                pair("emoji/1f680", "rocket", "c"),
                pair("emoji/231a_fe0f", "watch", "watch"),
                pair("emoji/1f3fb", "light skin tone", "d"),
                pair("emoji/1f680", "rocket: dark", "e"),
                pair("emoji/1f681", "without a label", "f"),
                pair("stamps/1f680", "A rocket.", "g", "stamps")},
               labels);
  ASSERT_EQ(subjects.size(), 2u);
  EXPECT_EQ(subjects[0].name, "rocket");
  EXPECT_STREQ(Kinds()[subjects[0].kind].phrase, "a means of transport");
  EXPECT_EQ(subjects[1].name, "watch");
  EXPECT_EQ(subjects[1].kind, -1);
}

TEST(KindsTest, ClashesAreMutualAndLabelsAreOfOneKind) {
  std::set<std::string> labels;
  for (int a = 0; a < static_cast<int>(Kinds().size()); ++a) {
    EXPECT_TRUE(Clash(a, a));
    for (int b = 0; b < static_cast<int>(Kinds().size()); ++b) {
      EXPECT_EQ(Clash(a, b), Clash(b, a)) << a << " " << b;
    }
    for (const char* label : Kinds()[a].labels) {
      EXPECT_TRUE(labels.insert(label).second) << label;
    }
  }
}

TEST(PictureTest, ReducePasteAndBoxes) {
  Picture picture(4, 4, 10, 20, 30);
  picture.rgba[3] = 0;  // One transparent pixel does not tint its mean.
  const Picture small = Reduce(picture, 2, 2);
  EXPECT_EQ(small.rgba[0], 10);
  EXPECT_EQ(small.rgba[3], 191);  // 3/4 of 255
  EXPECT_EQ(small.rgba[7], 255);
  Picture canvas(6, 5, 255, 255, 255);
  std::fill(canvas.rgba.begin(), canvas.rgba.end(), uint8_t{0});
  EXPECT_EQ(VisibleBox(canvas).w, 0);
  Paste(Picture(2, 3, 1, 2, 3), 3, 1, &canvas);
  Paste(Picture(2, 2, 9, 9, 9), 5, -1, &canvas);  // Half of it is outside.
  const Box box = VisibleBox(canvas);
  EXPECT_EQ(box.x, 3);
  EXPECT_EQ(box.y, 0);
  EXPECT_EQ(box.w, 3);
  EXPECT_EQ(box.h, 4);
  EXPECT_DOUBLE_EQ(Iou({0, 0, 2, 2}, {1, 1, 2, 2}), 1.0 / 7);
  EXPECT_EQ(Iou({0, 0, 2, 2}, {2, 0, 2, 2}), 0);
  const auto back = DecodePng(*EncodePng(Picture(3, 2, 7, 8, 9), true));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->rgba, Picture(3, 2, 7, 8, 9).rgba);
  EXPECT_FALSE(DecodePng("no png").ok());
}

TEST(DiceTest, IsTheSameOnEveryMachine) {
  // SplitMix64 from this state, by an independent implementation.
  Dice dice("dice");
  const uint64_t first = dice.Next(), second = dice.Next();
  EXPECT_EQ(absl::StrFormat("%016x %016x", first, second),
            "64760431e282e0c1 eaf6b31510e7fd1a");
  std::map<int, int> counts;
  for (int i = 0; i < 6000; ++i) ++counts[dice.Between(2, 7)];
  EXPECT_EQ(counts.size(), 6u);
  for (const auto& [value, n] : counts) EXPECT_NEAR(n, 1000, 120) << value;
}

}  // namespace
}  // namespace semvq::tools
