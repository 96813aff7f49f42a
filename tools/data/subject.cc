#include "tools/data/subject.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tools/data/emoji.h"

namespace semvq::tools {
namespace {

// The members of a UnicodeSet of single characters, ranges and {strings}, which
// is all that labels.txt uses.
absl::Status ParseSet(const std::u32string& set,
                      std::vector<std::u32string>* members) {
  const auto bad = [](const char* why) {
    return absl::InvalidArgumentError(why);
  };
  if (set.size() < 2 || set.front() != U'[' || set.back() != U']') {
    return bad("expected a set in brackets");
  }
  const size_t end = set.size() - 1;
  for (size_t i = 1; i < end; ++i) {
    if (set[i] == U'{') {
      const size_t close = set.find(U'}', i);
      if (close == std::u32string::npos) return bad("a { without its }");
      members->push_back(set.substr(i + 1, close - i - 1));
      i = close;
    } else if (set[i] == U'-' && i > 1 && i + 1 < end) {
      const char32_t first = set[i - 1], last = set[++i];
      if (last < first) return bad("a range that runs backwards");
      for (char32_t c = first + 1; c <= last; ++c) members->emplace_back(1, c);
    } else if (set[i] == U'\\' || set[i] == U'[' || set[i] == U'&') {
      return bad("a set with escapes or operators");
    } else {
      members->emplace_back(1, set[i]);
    }
  }
  return absl::OkStatus();
}

std::u32string WithoutPresentation(std::u32string sequence) {
  sequence.erase(std::remove(sequence.begin(), sequence.end(), U'\uFE0F'),
                 sequence.end());
  return sequence;
}

// "emoji/1f468_200d_1f680" names its code points.
std::u32string SequenceOf(const std::string& image_id) {
  std::u32string sequence;
  const size_t slash = image_id.find('/');
  for (const absl::string_view hex :
       absl::StrSplit(absl::string_view(image_id).substr(slash + 1), '_')) {
    sequence += static_cast<char32_t>(
        std::strtoul(std::string(hex).c_str(), nullptr, 16));
  }
  return WithoutPresentation(std::move(sequence));
}

}  // namespace

absl::StatusOr<Labels> ReadLabels(const std::string& path) {
  auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  Labels labels;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    const std::vector<std::string> fields = absl::StrSplit(line, ';');
    const auto bad = [&](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", number, ": ", why,
                       "; expected CLDR's labels, as in [😀] ; Smileys ; face"));
    };
    if (fields.size() < 2) return bad("no label");
    const auto set =
        DecodeUtf8(std::string(absl::StripAsciiWhitespace(fields[0])));
    if (!set.ok()) return bad(set.status().message());
    std::vector<std::u32string> members;
    const absl::Status parsed = ParseSet(*set, &members);
    if (!parsed.ok()) return bad(parsed.message());
    const std::pair<std::string, std::string> label = {
        std::string(absl::StripAsciiWhitespace(fields[1])),
        fields.size() < 3 ? std::string()
                          : std::string(absl::StripAsciiWhitespace(fields[2]))};
    for (std::u32string& member : members) {
      member = WithoutPresentation(std::move(member));
      if (!member.empty()) labels.emplace(std::move(member), label);
    }
  }
  if (labels.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " holds no labels; expected CLDR's labels.txt"));
  }
  return labels;
}

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind>* kinds = new std::vector<Kind>{
      /* 0 */ {"a face",
               {"face-positive", "face-neutral", "face-negative", "face-sick",
                "face-role", "face-fantasy"},
               {1, 9}},
      /* 1 */
      {"a person",
       {"person", "person-role", "person-sport", "person-activity",
        "person-fantasy", "person-gesture", "family"},
       {0, 7, 10, 11}},
      /* 2 */
      {"an animal",
       {"animal-mammal", "animal-bird", "animal-bug", "animal-marine",
        "animal-reptile", "animal-amphibian"},
       {}},
      /* 3 */ {"a plant", {"plant-other", "plant-flower"}, {4}},
      /* 4 */
      {"something to eat or drink",
       {"food-prepared", "food-asian", "food-fruit", "food-sweet",
        "food-vegetable", "drink"},
       {3}},
      /* 5 */
      {"a means of transport",
       {"transport-ground", "transport-air", "transport-water"},
       {9}},
      /* 6 */ {"a building", {"place-building", "place-religious"}, {}},
      /* 7 */ {"something to wear", {"clothing"}, {1}},
      /* 8 */ {"the sky or the weather", {"sky & weather"}, {9}},
      /* 9 */
      {"a sign",
       {"alphanum", "other-symbol", "av-symbol", "geometric", "arrow", "zodiac",
        "warning", "religion", "transport-sign"},
       {0, 5, 8, 12}},
      /* 10 */ {"a sport or a game", {"sport", "game"}, {1}},
      /* 11 */ {"a part of the body", {"body"}, {1}},
      /* 12 */ {"the time", {"time"}, {9}},
  };
  return *kinds;
}

bool Clash(int a, int b) {
  const std::vector<int>& clashes = Kinds()[a].clashes;
  return a == b ||
         std::find(clashes.begin(), clashes.end(), b) != clashes.end();
}

std::vector<Subject> Subjects(const std::vector<Pair>& pairs,
                              const Labels& labels) {
  struct Found {
    size_t length;
    Subject subject;
  };
  std::map<std::string, Found> by_concept;
  for (const Pair& pair : pairs) {
    if (pair.source != "emoji" || absl::StrContains(pair.caption, ":")) {
      continue;
    }
    const std::u32string sequence = SequenceOf(pair.image_id);
    const auto label = labels.find(sequence);
    if (label == labels.end() || label->second.second == "skin-tone") continue;
    Found found{sequence.size(),
                {pair.image, pair.image_id, pair.caption, pair.concept_name}};
    for (size_t k = 0; k < Kinds().size(); ++k) {
      for (const char* name : Kinds()[k].labels) {
        if (label->second.second == name) {
          found.subject.kind = static_cast<int>(k);
        }
      }
    }
    const auto [it, fresh] = by_concept.emplace(pair.concept_name, found);
    if (!fresh &&
        std::make_pair(found.length, found.subject.image_id) <
            std::make_pair(it->second.length, it->second.subject.image_id)) {
      it->second = found;
    }
  }
  std::vector<Subject> subjects;
  for (auto& [name, found] : by_concept) {
    subjects.push_back(std::move(found.subject));
  }
  std::sort(subjects.begin(), subjects.end(),
            [](const Subject& a, const Subject& b) {
              return a.image_id < b.image_id;
            });
  return subjects;
}

}  // namespace semvq::tools
