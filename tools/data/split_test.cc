// Concept groups and splits.
#include "tools/data/split.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "simdjson.h"
#include "tools/data/common.h"
#include "tools/data/concept.h"

namespace semvq::tools {
namespace {

Pair MakePair(const std::string& id, const std::string& caption,
              std::vector<std::string> keys) {
  Pair pair;
  pair.image = "images/" + id + ".png";
  pair.image_id = id;
  pair.caption = caption;
  pair.source = "emoji";
  pair.group_keys = std::move(keys);
  return pair;
}

// 1,200 groups of 1 to 4 pairs; some captions repeat inside a group, and two
// groups in ten share a caption with their neighbour.
std::vector<Pair> SyntheticPairs() {
  std::vector<Pair> pairs;
  for (int g = 0; g < 1200; ++g) {
    for (int i = 0; i <= g % 4; ++i) {
      const int named = g % 10 == 1 ? g - 1 : g;
      pairs.push_back(MakePair(
          absl::StrCat("x/", g, "_", i),
          absl::StrCat("Thing ", named, i == 3 ? ": tone 2" : "", ": tone ", i),
          {absl::StrCat("phrase:thing ", g)}));
    }
  }
  AssignConcepts(&pairs);
  return pairs;
}

TEST(HashTest, MatchesThePublishedSha256) {
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_DOUBLE_EQ(HashFraction("abc"), 0xba7816bf8f01cfeap-64);
}

TEST(HashTest, FractionsAreSpreadEvenly) {
  int below = 0;
  for (int i = 0; i < 10000; ++i) below += HashFraction(absl::StrCat(i)) < 0.1;
  EXPECT_NEAR(below, 1000, 100);
}

TEST(JsonTest, AnyTextSurvives) {
  std::string text =
      "quote \" backslash \\ tab \t line \n bell \x07 é 👩🏽‍🚀 ";
  text += '\0';
  simdjson::dom::parser parser;
  std::string_view parsed;
  ASSERT_FALSE(parser.parse("[" + JsonString(text) + "]").at(0).get(parsed));
  EXPECT_EQ(parsed, text);
}

TEST(ConceptTest, PhrasesDropWhatDoesNotName) {
  EXPECT_EQ(NormalizePhrase("A rocket."), "rocket");
  EXPECT_EQ(NormalizePhrase("Some flowers."), "flower");
  EXPECT_EQ(NormalizePhrase("“T-intersection”."), "t intersection");
  EXPECT_EQ(NormalizePhrase("eight o’clock"), NormalizePhrase("Eight o'clock"));
  EXPECT_EQ(NormalizePhrase("Strawberries"), NormalizePhrase("a strawberry"));
  EXPECT_EQ(NormalizePhrase("A bus"), "bus");
  EXPECT_EQ(NormalizePhrase("The letter A."), NormalizePhrase("The letter a."));
  EXPECT_EQ(NormalizePhrase("..."), "...");
  EXPECT_EQ(NormalizePhrase("keycap: #"), "keycap #");
  EXPECT_EQ(StampConcept("A cluster of grapes."), "grape");
}

TEST(ConceptTest, EmojiVariantsShareTheirBase) {
  EXPECT_EQ(EmojiConcept("woman teacher: dark skin tone"), "teacher");
  EXPECT_EQ(EmojiConcept("teacher"), "teacher");
  EXPECT_EQ(EmojiConcept("man: medium skin tone, bald"), "person");
  EXPECT_EQ(EmojiConcept("woman"), "person");
  EXPECT_EQ(EmojiConcept("flag: Bosnia & Herzegovina"), "flag");
  EXPECT_EQ(EmojiConcept("pirate flag"), "flag");
  EXPECT_EQ(EmojiConcept("keycap: #"), "keycap");
  EXPECT_EQ(EmojiConcept("family: man, woman, boy"), "family");
  EXPECT_EQ(EmojiConcept("woman and man holding hands: dark skin tone"),
            EmojiConcept("people holding hands"));
  EXPECT_EQ(EmojiConcept("old woman"), EmojiConcept("older person"));
  EXPECT_NE(EmojiConcept("man’s shoe"), EmojiConcept("person"));
}

TEST(ConceptTest, BaseSequences) {
  // Woman astronaut with a skin tone, and the neutral astronaut.
  EXPECT_EQ(EmojiBaseSequence(U"\U0001F469\U0001F3FD\u200D\U0001F680"),
            EmojiBaseSequence(U"\U0001F9D1\u200D\U0001F680"));
  // Mermaid (gender sign, presentation) and merperson.
  EXPECT_EQ(EmojiBaseSequence(U"\U0001F9DC\u200D\u2640\uFE0F"),
            EmojiBaseSequence(U"\U0001F9DC"));
  // The female sign alone is not a variant of anything.
  EXPECT_EQ(EmojiBaseSequence(U"\u2640"), U"\u2640");
  EXPECT_EQ(EmojiBaseSequence(U"\U0001F3FB"), U"");
}

TEST(ConceptTest, AnySharedKeyJoins) {
  std::vector<Pair> pairs = {
      MakePair("a", "mermaid", {"phrase:mermaid", "sequence:1f9dc"}),
      MakePair("b", "merperson", {"phrase:merperson", "sequence:1f9dc"}),
      MakePair("c", "A mermaid.", {"phrase:mermaid", "pixels:1"}),
      MakePair("d", "A doll.", {"phrase:doll", "pixels:1"}),
      MakePair("e", "merry", {"phrase:merry", "pixels:2"})};
  EXPECT_EQ(AssignConcepts(&pairs), 2);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pairs[i].concept_name, "doll");
  EXPECT_EQ(pairs[4].concept_name, "merry");
}

TEST(SplitTest, NoHeldOutConceptIsTrainedOn) {
  const auto pairs = SyntheticPairs();
  const PairSplits splits = SplitPairs(pairs, {0.1, 0.1, 0.1, 0.1});
  EXPECT_TRUE(CheckSplits(splits).ok()) << CheckSplits(splits);

  // The same claim, checked without CheckSplits.
  std::set<std::string> held_out;
  for (const auto* part : {&splits.unseen, &splits.val_unseen}) {
    for (const Pair& pair : *part) held_out.insert(pair.concept_name);
  }
  for (const auto* part : {&splits.train, &splits.random, &splits.val_random}) {
    EXPECT_FALSE(part->empty());
    for (const Pair& pair : *part) {
      EXPECT_EQ(held_out.count(pair.concept_name), 0u) << pair.image_id;
    }
  }
  EXPECT_NEAR(held_out.size(), 240, 60);
  // Some random test pairs have a sibling in training: that is their point.
  std::set<std::string> trained;
  for (const Pair& pair : splits.train) trained.insert(pair.concept_name);
  EXPECT_GT(std::count_if(splits.random.begin(), splits.random.end(),
                          [&](const Pair& pair) {
                            return trained.count(pair.concept_name) != 0;
                          }),
            static_cast<long>(splits.random.size() / 2));
  // Nothing vanishes uncounted.
  EXPECT_EQ(splits.train.size() + splits.unseen.size() + splits.random.size() +
                splits.val_unseen.size() + splits.val_random.size() +
                static_cast<size_t>(splits.dropped),
            pairs.size());
  EXPECT_GT(splits.dropped, 0);
  EXPECT_GT(splits.returned, 0);
}

TEST(SplitTest, NoKeywordOfATrainingPairIsAHeldOutName) {
  std::vector<Pair> pairs = SyntheticPairs();
  for (Pair& pair : pairs) {
    for (int g = 0; g < 1200; g += 7)
      pair.keywords.push_back(absl::StrCat("THING ", g, ": tone 0"));
    pair.keywords.push_back("a thing");
    pair.keywords.push_back("as " + pair.image_id);
  }
  const PairSplits splits = SplitPairs(pairs, DefaultShares());
  std::set<std::string> held_out;
  for (const auto* part : {&splits.unseen, &splits.random, &splits.val_unseen,
                           &splits.val_random}) {
    for (const Pair& pair : *part) {
      held_out.insert(NormalizePhrase(pair.caption));
      EXPECT_EQ(pair.keywords.size(), pairs[0].keywords.size());
    }
  }
  int64_t removed = 0;
  for (const Pair& pair : splits.train) {
    EXPECT_EQ(*(pair.keywords.end() - 2), "a thing");
    for (const std::string& word : pair.keywords)
      EXPECT_EQ(held_out.count(NormalizePhrase(word)), 0u) << word;
    removed += static_cast<int64_t>(pairs[0].keywords.size()) -
               static_cast<int64_t>(pair.keywords.size());
  }
  EXPECT_GT(removed, 0);
  EXPECT_EQ(splits.keywords_held_out, removed);
}

TEST(SplitTest, KeywordsOfSeveralTrainingPairsAreNoCaption) {
  std::vector<Pair> pairs = SyntheticPairs();
  for (size_t i = 0; i < pairs.size(); ++i) {
    pairs[i].keywords = {"thing"};
    if (i % 3 == 0) pairs[i].keywords.push_back(pairs[i].image_id);
    if (i % 3 == 1) pairs[i].keywords.clear();
  }
  const PairSplits splits = SplitPairs(pairs, DefaultShares());
  std::map<size_t, int64_t> had;
  for (const Pair& pair : splits.train) ++had[pair.keywords.size()];
  EXPECT_GT(had[2], 0);
  EXPECT_EQ(had[1], 0);
  EXPECT_GT(splits.keywords_shared, 0);
  EXPECT_LT(splits.keywords_shared, had[0]);
}

TEST(SplitTest, OrderOfTheInputDoesNotMatter) {
  auto pairs = SyntheticPairs();
  const PairSplits before = SplitPairs(pairs, DefaultShares());
  std::shuffle(pairs.begin(), pairs.end(), std::mt19937(7));
  AssignConcepts(&pairs);
  const PairSplits after = SplitPairs(pairs, DefaultShares());
  EXPECT_EQ(PairsJson(before.train), PairsJson(after.train));
  EXPECT_EQ(PairsJson(before.unseen), PairsJson(after.unseen));
  EXPECT_EQ(PairsJson(before.random), PairsJson(after.random));
}

TEST(SplitTest, CheckFindsEachKindOfLeak) {
  const PairSplits good = SplitPairs(SyntheticPairs(), {0.1, 0.1, 0.1, 0.1});
  ASSERT_TRUE(CheckSplits(good).ok());
  const auto message = [](const PairSplits& splits) {
    return std::string(CheckSplits(splits).message());
  };
  PairSplits sibling = good;
  sibling.train.push_back(good.unseen[0]);
  sibling.train.back().image_id = "x/sibling";
  EXPECT_TRUE(absl::StrContains(message(sibling), "held out"))
      << message(sibling);
  PairSplits twice = good;
  twice.train.push_back(good.random[0]);
  EXPECT_TRUE(absl::StrContains(message(twice), "is in train and in random"))
      << message(twice);
  PairSplits repeated = good;
  repeated.random.push_back(good.random[0]);
  repeated.random.back().image_id = "x/other";
  EXPECT_TRUE(absl::StrContains(message(repeated), "repeats"))
      << message(repeated);
  PairSplits between = good;
  between.val_unseen.push_back(good.unseen[0]);
  between.val_unseen.back().image_id = "x/between";
  EXPECT_FALSE(CheckSplits(between).ok());
}

}  // namespace
}  // namespace semvq::tools
