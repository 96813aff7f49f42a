#include "core/text/tokenizer.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/text/word_vocabulary.h"
#include "core/util/file.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::string TempPath(const std::string& name) {
  return JoinPath(testing::TempDir(), name);
}

std::string WriteVocab(const std::string& name,
                       const std::vector<std::string>& entries) {
  const std::string path = TempPath(name);
  EXPECT_TRUE(AtomicWriteFile(path, absl::StrJoin(entries, "\n") + "\n").ok());
  return path;
}

std::unique_ptr<Tokenizer> SmallWordPiece(const WordPieceOptions& o = {}) {
  auto tokenizer = LoadWordPiece(
      WriteVocab(
          "small_vocab.txt",
          {"[PAD]", "[UNK]",  "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s",
           "play",  "##ing",  "##ed",  "cafe",  ",",      "'", "犬",  "un",
           "##aff", "##able", "[",     "]",     "mask",   "🐶", "##a", "A"}),
      o);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<std::string> Pieces(const Tokenizer& t, absl::string_view text) {
  std::vector<std::string> out;
  for (int64_t id : t.Encode(text)) out.push_back(t.Piece(id));
  return out;
}

using Strings = std::vector<std::string>;

TEST(WordPiece, CutsGreedily) {
  const auto t = SmallWordPiece();
  EXPECT_EQ(
      Pieces(*t, "Dogs playing, unaffable"),
      (Strings{"dog", "##s", "play", "##ing", ",", "un", "##aff", "##able"}));
  EXPECT_EQ(Pieces(*t, "dogx a"), (Strings{"[UNK]", "a"}));
  EXPECT_EQ(Pieces(*t, "dog's"), (Strings{"dog", "'", "[UNK]"}));
}

TEST(WordPiece, AVocabularyOfWordsThatSeveralImagesHave) {
  const std::vector<Strings> images = {{"A red dog", "dog, red"},
                                       {"a Dog: café"},
                                       {"Cafe.", "cat"},
                                       {},
                                       {"犬犬"}};
  EXPECT_EQ(WordVocabulary(images, 2),
            (Strings{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cafe",
                     "dog"}));
  EXPECT_EQ(WordVocabulary(images, 1).size(), 5u + 9u);
  EXPECT_EQ(WordVocabulary(images, 4).size(), 5u);
  auto t = LoadWordPiece(WriteVocab("words.txt", WordVocabulary(images, 2)));
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_EQ(Pieces(**t, "a doghouse, CAFÉ dog"),
            (Strings{"a", "[UNK]", "[UNK]", "cafe", "dog"}));
}

TEST(WordPiece, NormalisesAsBert) {
  const auto t = SmallWordPiece();
  EXPECT_EQ(Pieces(*t, "CAFÉ"), (Strings{"cafe"}));
  EXPECT_EQ(Pieces(*t, "cafe\u0301"), (Strings{"cafe"}));          // combining
  EXPECT_EQ(Pieces(*t, "犬犬dog"), (Strings{"犬", "犬", "dog"}));  // CJK
  EXPECT_EQ(Pieces(*t, "a\u3000dog\u00a0a\t\n"), (Strings{"a", "dog", "a"}));
  EXPECT_EQ(Pieces(*t, std::string("do\0g", 4)), (Strings{"dog"}));
  EXPECT_EQ(Pieces(*t, "do\u200bg\ufffd"), (Strings{"dog"}));  // format char
  EXPECT_EQ(Pieces(*t, "dog\u0378"), (Strings{"[UNK]"}));      // unassigned
  EXPECT_EQ(Pieces(*t, "do\ue000g"), (Strings{"dog"}));        // private use
  EXPECT_EQ(Pieces(*t, "🐶 🦊"), (Strings{"🐶", "[UNK]"}));
  EXPECT_EQ(Pieces(*t, ""), Strings{});
  EXPECT_EQ(Pieces(*t, " \n "), Strings{});
}

TEST(WordPiece, CasedKeepsCaseAndAccents) {
  WordPieceOptions options;
  options.uncased = false;
  const auto t = SmallWordPiece(options);
  EXPECT_EQ(Pieces(*t, "A a"), (Strings{"A", "a"}));
  EXPECT_EQ(Pieces(*t, "café"), (Strings{"[UNK]"}));
  EXPECT_NE(t->fingerprint(), SmallWordPiece()->fingerprint());
}

TEST(WordPiece, TextNeverBecomesASpecialToken) {
  const auto t = SmallWordPiece();
  EXPECT_EQ(Pieces(*t, "[MASK]"), (Strings{"[", "mask", "]"}));
}

TEST(WordPiece, LongWordsAreUnknown) {
  const auto t = SmallWordPiece();
  EXPECT_EQ(t->Encode(std::string(100, 'a')).size(), 100u);
  EXPECT_EQ(t->Encode(std::string(101, 'a')),
            std::vector<int64_t>{t->unk_id()});
}

TEST(WordPiece, DecodesReadably) {
  const auto t = SmallWordPiece();
  std::vector<int64_t> ids = t->Encode("a dog playing");
  EXPECT_EQ(t->Decode(ids), "a dog playing");
  ids.insert(ids.begin(), t->cls_id());
  ids.push_back(t->sep_id());
  ids.push_back(t->pad_id());
  EXPECT_EQ(t->Decode(ids), "a dog playing");
  EXPECT_EQ(t->Decode({-1, 1 << 20}), "[UNK] [UNK]");
  EXPECT_EQ(t->Piece(-1), "");
}

TEST(WordPiece, RefusesBadVocabularies) {
  struct {
    Strings entries;
    const char* expected;
  } cases[] = {
      {{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"}, "no entry [MASK]"},
      {{"[PAD]", "[UNK]", "a", "a"}, ":4: \"a\" is there already, in line 3"},
      {{"[PAD]", "", "a"}, ":2: empty line"},
      {{"[PAD]", "\xff"}, "offset 6"},
      {{}, "empty line"},
  };
  for (const auto& c : cases) {
    const auto t = LoadWordPiece(WriteVocab("bad_vocab.txt", c.entries));
    EXPECT_EQ(t.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(t.status().message().find(c.expected), absl::string_view::npos)
        << t.status();
  }
  EXPECT_EQ(LoadWordPiece(TempPath("absent.txt")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(EncodePadded, PutsSpecialsAndPads) {
  const auto t = SmallWordPiece();
  const auto out = EncodePadded(*t, {"a dog", "", "a a a a a a"}, 5);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->batch, 3);
  EXPECT_EQ(out->length, 5);
  EXPECT_EQ(out->ids, (std::vector<int64_t>{2, 5, 6, 3, 0,  //
                                            2, 3, 0, 0, 0,  //
                                            2, 5, 5, 5, 3}));
  EXPECT_EQ(out->mask, (std::vector<int64_t>{1, 1, 1, 1, 0,  //
                                             1, 1, 0, 0, 0,  //
                                             1, 1, 1, 1, 1}));
  EXPECT_EQ(out->truncated, 1);
  EXPECT_EQ(EncodePadded(*t, {}, 5)->batch, 0);
}

TEST(EncodePadded, RefusesBadInput) {
  const auto t = SmallWordPiece();
  EXPECT_EQ(EncodePadded(*t, {"a"}, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto bad = EncodePadded(*t, {"a", "b\xff"}, 5);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("text 1"), absl::string_view::npos);
  EXPECT_NE(bad.status().message().find("offset 1"), absl::string_view::npos);
}

Strings TrainingCaptions() {
  const Strings things = {"dog", "cat", "bird", "horse", "café", "犬", "train"};
  const Strings places = {"grass", "street", "beach", "sofa", "mountain"};
  const Strings acts = {"running", "sitting",  "sleeping",
                        "eating",  "standing", "jumping"};
  Strings captions;
  for (const auto& thing : things) {
    for (const auto& place : places) {
      for (const auto& act : acts) {
        captions.push_back(
            absl::StrCat("a ", thing, " is ", act, " on the ", place));
      }
    }
  }
  return captions;
}

class SentencePieceTest
    : public testing::TestWithParam<SentencePieceOptions::Model> {
 protected:
  SentencePieceOptions Options() const {
    SentencePieceOptions options;
    options.model = GetParam();
    options.vocab_size = 90;
    options.character_coverage = 1;
    options.seed = 7;
    return options;
  }
  std::string Path(const std::string& name) const {
    return TempPath(absl::StrCat(name, static_cast<int>(GetParam())));
  }
};

TEST_P(SentencePieceTest, TrainsLoadsAndRoundTrips) {
  const std::string path = Path("trained.model");
  ASSERT_TRUE(TrainSentencePiece(TrainingCaptions(), Options(), path).ok());
  auto t = LoadSentencePiece(path);
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_LE((*t)->vocab_size(), 90);
  EXPECT_EQ((*t)->pad_id(), 0);
  EXPECT_EQ((*t)->unk_id(), 1);
  EXPECT_EQ((*t)->cls_id(), 2);
  EXPECT_EQ((*t)->sep_id(), 3);
  EXPECT_EQ((*t)->mask_id(), 4);
  EXPECT_EQ((*t)->Piece(4), "[MASK]");
  for (const std::string& caption : TrainingCaptions()) {
    EXPECT_EQ((*t)->Decode((*t)->Encode(caption)), caption);
  }
  EXPECT_EQ((*t)->Encode("A DOG"), (*t)->Encode("a dog"));
  EXPECT_TRUE((*t)->Encode("").empty());
  for (int64_t id : (*t)->Encode("[MASK] [CLS] [PAD] a dog")) EXPECT_GT(id, 0);
  const auto masked = (*t)->Encode("[MASK]");
  EXPECT_EQ(std::count(masked.begin(), masked.end(), (*t)->mask_id()), 0);
  const auto emoji = (*t)->Encode("🦊");
  EXPECT_EQ(std::count(emoji.begin(), emoji.end(), (*t)->unk_id()), 1);
  EXPECT_EQ((*t)->Piece(-1), "");
  EXPECT_NE((*t)->Decode({-5, 1 << 20}).find("[UNK]"), std::string::npos);
}

TEST_P(SentencePieceTest, SameInputGivesSameBytes) {
  const auto captions = TrainingCaptions();
  const std::string first = Path("first.model"), second = Path("second.model");
  ASSERT_TRUE(TrainSentencePiece(captions, Options(), first).ok());
  ASSERT_TRUE(TrainSentencePiece(captions, Options(), second).ok());
  EXPECT_EQ(*ReadFile(first), *ReadFile(second));
  EXPECT_EQ((*LoadSentencePiece(first))->fingerprint(),
            (*LoadSentencePiece(second))->fingerprint());
}

TEST_P(SentencePieceTest, MakesDoWithFewerEntriesThanAsked) {
  SentencePieceOptions options = Options();
  options.vocab_size = 20000;
  const std::string path = Path("large.model");
  const absl::Status status =
      TrainSentencePiece(TrainingCaptions(), options, path);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_LT((*LoadSentencePiece(path))->vocab_size(), 20000);
}

TEST_P(SentencePieceTest, RefusesBadRequests) {
  const std::string path = Path("refused.model");
  SentencePieceOptions options = Options();
  options.vocab_size = 8;  // fewer than there are letters
  const auto few = TrainSentencePiece(TrainingCaptions(), options, path);
  EXPECT_EQ(few.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(few.message().find("raise vocab_size"), absl::string_view::npos);
  options.vocab_size = 5;
  EXPECT_FALSE(TrainSentencePiece(TrainingCaptions(), options, path).ok());
  EXPECT_FALSE(TrainSentencePiece({}, Options(), path).ok());
  EXPECT_FALSE(TrainSentencePiece({"", " "}, Options(), path).ok());
  EXPECT_FALSE(TrainSentencePiece({"a", "\xff"}, Options(), path).ok());
  EXPECT_FALSE(PathExists(path));
}

TEST_P(SentencePieceTest, LongTextIsFast) {
  const std::string path = Path("long.model");
  ASSERT_TRUE(TrainSentencePiece(TrainingCaptions(), Options(), path).ok());
  const auto learnt = *LoadSentencePiece(path);
  const auto wordpiece = SmallWordPiece();
  std::string spaced;
  while (spaced.size() < 100000) spaced += "a dog playing 犬 ";
  for (const std::string& text :
       {spaced, std::string(100000, 'a'), std::string(100000, ',')}) {
    for (const Tokenizer* t : {learnt.get(), wordpiece.get()}) {
      const auto start = std::chrono::steady_clock::now();
      const auto out = EncodePadded(*t, {text}, 25);
      const std::chrono::duration<double> took =
          std::chrono::steady_clock::now() - start;
      ASSERT_TRUE(out.ok());
      EXPECT_LT(took.count(), 2.0) << text.substr(0, 10);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SentencePieceTest,
                         testing::Values(SentencePieceOptions::Model::kUnigram,
                                         SentencePieceOptions::Model::kBpe));

TEST(SentencePiece, RefusesForeignFiles) {
  const std::string path = TempPath("not_a.model");
  for (const std::string& contents :
       {std::string(), std::string("hello"), std::string(1000, '\xff')}) {
    ASSERT_TRUE(AtomicWriteFile(path, contents).ok());
    EXPECT_EQ(LoadSentencePiece(path).status().code(),
              absl::StatusCode::kInvalidArgument)
        << contents.size();
  }
  EXPECT_EQ(LoadSentencePiece(TempPath("absent.model")).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace semvq
