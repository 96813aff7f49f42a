#include "tools/data/concept.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace semvq::tools {
namespace {

constexpr absl::string_view kPhrase = "phrase:";

template <size_t N>
bool IsAnyOf(absl::string_view word,
             const std::array<absl::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Good enough to make both sides of a comparison agree; not a lemmatizer.
std::string Singular(std::string word) {
  const auto drop = [&](size_t n) { word.resize(word.size() - n); };
  if (word.size() <= 3 || word.back() != 's') return word;
  if (absl::EndsWith(word, "ies") && word.size() > 4) {
    drop(3);
    word += 'y';
  } else if (absl::EndsWith(word, "ches") || absl::EndsWith(word, "shes") ||
             absl::EndsWith(word, "sses") || absl::EndsWith(word, "xes") ||
             absl::EndsWith(word, "oes")) {
    drop(2);
  } else if (!absl::EndsWith(word, "ss") && !absl::EndsWith(word, "us") &&
             !absl::EndsWith(word, "is")) {
    drop(1);
  }
  return word;
}

// Lower-case words. Punctuation, ASCII or in U+2000..U+206F (dashes, curly
// quotes, ellipses), separates words unless it stands inside one (o'clock).
std::vector<std::string> Words(absl::string_view text) {
  const auto punctuation_length = [&](size_t i) -> size_t {
    const auto byte = [&](size_t at) {
      return at < text.size() ? static_cast<unsigned char>(text[at]) : 0;
    };
    if (byte(i) == 0xE2 && (byte(i + 1) == 0x80 || byte(i + 1) == 0x81)) {
      return 3;
    }
    // Signs that are a caption's whole meaning ("#", "+") stay.
    const bool sign = text[i] == '#' || text[i] == '*' || text[i] == '+' ||
                      text[i] == '$' || text[i] == '%' || text[i] == '&';
    return absl::ascii_isspace(byte(i)) ||
                   (absl::ascii_ispunct(byte(i)) && !sign)
               ? 1
               : 0;
  };
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i < text.size();) {
    const size_t length = punctuation_length(i);
    const bool apostrophe =
        length > 0 && (text[i] == '\'' || text.substr(i, 3) == "\u2019");
    if (length == 0) {
      word += absl::ascii_tolower(text[i++]);
      continue;
    }
    i += length;
    if (apostrophe) continue;  // one's -> ones, on both sides alike
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string JoinWords(std::vector<std::string> words) {
  constexpr std::array<absl::string_view, 4> kArticles = {"a", "an", "the",
                                                          "some"};
  if (words.size() > 1 && IsAnyOf(words[0], kArticles)) {
    words.erase(words.begin());
  }
  for (std::string& word : words) word = Singular(std::move(word));
  return absl::StrJoin(words, " ");
}

class UnionFind {
 public:
  explicit UnionFind(size_t n) : parent_(n) {
    std::iota(parent_.begin(), parent_.end(), size_t{0});
  }
  size_t Find(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void Join(size_t a, size_t b) { parent_[Find(a)] = Find(b); }

 private:
  std::vector<size_t> parent_;
};

}  // namespace

std::string NormalizePhrase(absl::string_view caption) {
  std::string phrase = JoinWords(Words(caption));
  // A caption of nothing but punctuation is its own phrase.
  return phrase.empty() ? absl::AsciiStrToLower(caption) : phrase;
}

std::string EmojiConcept(absl::string_view cldr_name) {
  constexpr std::array<absl::string_view, 8> kGender = {
      "man", "woman", "person", "men", "women", "people", "male", "female"};
  if (absl::StartsWith(cldr_name, "flag:") ||
      absl::EndsWith(cldr_name, " flag")) {
    return "flag";
  }
  std::vector<std::string> words =
      Words(cldr_name.substr(0, cldr_name.find(": ")));
  const auto is_gender = [&](const std::string& word) {
    return IsAnyOf(word, kGender);
  };
  const bool had_gender = std::any_of(words.begin(), words.end(), is_gender);
  words.erase(std::remove_if(words.begin(), words.end(), is_gender),
              words.end());
  if (had_gender && !words.empty() && words[0] == "and") {
    words.erase(words.begin());  // woman and man holding hands
  }
  if (had_gender && words.size() == 1 && words[0] == "old") words = {"older"};
  if (words.empty()) return had_gender ? "person" : NormalizePhrase(cldr_name);
  return JoinWords(std::move(words));
}

std::string StampConcept(absl::string_view caption) {
  std::string phrase = NormalizePhrase(caption);
  constexpr std::array<absl::string_view, 10> kMeasures = {
      "pair of ",  "couple of ", "cluster of ", "head of ",  "bunch of ",
      "piece of ", "slice of ",  "group of ",   "glass of ", "cup of "};
  for (const absl::string_view measure : kMeasures) {
    if (absl::StartsWith(phrase, measure)) return phrase.substr(measure.size());
  }
  return phrase;
}

std::u32string EmojiBaseSequence(std::u32string_view sequence) {
  constexpr char32_t kJoiner = 0x200D;
  std::u32string plain;
  for (const char32_t c : sequence) {
    const bool skin = c >= 0x1F3FB && c <= 0x1F3FF;
    const bool hair = c >= 0x1F9B0 && c <= 0x1F9B3;
    const bool joined = !plain.empty() && plain.back() == kJoiner;
    const bool gender = (c == 0x2640 || c == 0x2642) && joined;
    if (c != 0xFE0F && !skin && !hair && !gender) plain += c;
  }
  std::u32string base;
  for (const char32_t c : plain) {
    if (c != kJoiner) base += c;
  }
  if (base.size() > 1) {
    for (char32_t& c : base) {
      if (c == 0x1F468 || c == 0x1F469) c = 0x1F9D1;
    }
  }
  return base;
}

int AssignConcepts(std::vector<Pair>* pairs) {
  UnionFind groups(pairs->size());
  std::map<std::string, size_t> first_with;
  for (size_t i = 0; i < pairs->size(); ++i) {
    for (const std::string& key : (*pairs)[i].group_keys) {
      const auto [it, inserted] = first_with.emplace(key, i);
      if (!inserted) groups.Join(i, it->second);
    }
  }
  std::map<size_t, std::string> names;
  for (size_t i = 0; i < pairs->size(); ++i) {
    std::string& name = names[groups.Find(i)];
    for (const std::string& key : (*pairs)[i].group_keys) {
      if (!absl::StartsWith(key, kPhrase)) continue;
      const std::string phrase = key.substr(kPhrase.size());
      if (name.empty() || phrase.size() < name.size() ||
          (phrase.size() == name.size() && phrase < name)) {
        name = phrase;
      }
    }
  }
  for (size_t i = 0; i < pairs->size(); ++i) {
    (*pairs)[i].concept_name = names[groups.Find(i)];
  }
  return static_cast<int>(names.size());
}

}  // namespace semvq::tools
