#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/eval/caption_metrics.h"
#include "core/text/unicode.h"

namespace semvq {
namespace {

using Tokens = std::vector<std::string>;

constexpr absl::string_view kApostrophe =
    "\xe2\x80\x99";  // Right single quote.

bool IsWordByte(char c) {
  return absl::ascii_isalnum(c) || static_cast<unsigned char>(c) >= 0x80;
}

// Whether c goes on inside a word with `before` and `after` at its sides.
bool Connects(char before, char c, char after) {
  if (!IsWordByte(before) || !IsWordByte(after)) return false;
  switch (c) {
    case '-':
    case '_':
    case '\'':
    case '/':
    case '@':
    case '&':
    case '.':
      return true;
    case ',':
    case ':':
      return absl::ascii_isdigit(before) && absl::ascii_isdigit(after);
    default:
      return false;
  }
}

// Abbreviations that keep their period: letters with periods between, and those
// common in captions; a single letter does where the text goes on.
bool KeepsPeriod(const std::string& word, bool last) {
  static const auto* known = new std::set<std::string>{
      "mr",  "mrs",  "ms",  "dr", "st",   "jr",   "sr",  "etc", "vs",
      "mt",  "ave",  "inc", "co", "corp", "ltd",  "gen", "gov", "sen",
      "rep", "prof", "sgt", "lt", "col",  "blvd", "rd",  "ft",  "oz"};
  if (known->count(word) > 0) return true;
  if (word.size() == 1) return !last && absl::ascii_isalpha(word[0]);
  for (size_t i = 0; i < word.size(); ++i) {
    if (i % 2 == 0 ? !absl::ascii_isalpha(word[i]) : word[i] != '.')
      return false;
  }
  return word.size() % 2 == 1;
}

// A word without punctuation at its ends: contractions and the words that the
// Treebank takes apart.
void AddWord(std::string word, Tokens* tokens) {
  static const auto* parts =
      new std::vector<std::pair<std::string, std::array<std::string, 2>>>{
          {"cannot", {"can", "not"}}, {"gonna", {"gon", "na"}},
          {"gotta", {"got", "ta"}},   {"wanna", {"wan", "na"}},
          {"gimme", {"gim", "me"}},   {"y'all", {"y'", "all"}},
          {"'tis", {"'t", "is"}},     {"'twas", {"'t", "was"}},
          {"lemme", {"lem", "me"}}};
  for (const auto& [whole, halves] : *parts) {
    if (word == whole) {
      tokens->insert(tokens->end(), halves.begin(), halves.end());
      return;
    }
  }
  static const auto* clitics =
      new Tokens{"n't", "'s", "'m", "'re", "'ve", "'d", "'ll"};
  for (const std::string& clitic : *clitics) {
    for (const std::string& written :
         {clitic, absl::StrReplaceAll(clitic, {{"'", kApostrophe}})}) {
      if (word.size() <= written.size() || !absl::EndsWith(word, written))
        continue;
      AddWord(word.substr(0, word.size() - written.size()), tokens);
      tokens->push_back(clitic);
      return;
    }
  }
  tokens->push_back(std::move(word));
}

// The tokens of a text without white space in it; `last`: nothing follows.
void Split(absl::string_view text, bool last, Tokens* tokens) {
  size_t at = 0;
  const auto byte = [&](size_t i) { return i < text.size() ? text[i] : '\0'; };
  while (at < text.size()) {
    const char c = text[at];
    // A number may begin with its period: ".5".
    if (IsWordByte(c) || (c == '.' && absl::ascii_isdigit(byte(at + 1)) &&
                          (at == 0 || !IsWordByte(text[at - 1])))) {
      size_t end = at + 1;
      while (end < text.size() &&
             (IsWordByte(text[end]) ||
              Connects(text[end - 1], text[end], byte(end + 1))))
        ++end;
      std::string word(text.substr(at, end - at));
      if (byte(end) == '.' && byte(end + 1) != '.' &&
          KeepsPeriod(word, last && end + 1 == text.size())) {
        word += '.';
        ++end;
      }
      AddWord(std::move(word), tokens);
      at = end;
      continue;
    }
    // Runs that are one token.
    size_t end = at + 1;
    if (c == '.' || c == '-') {
      while (byte(end) == c) ++end;
    } else if (c == '!' || c == '?') {
      while (byte(end) == '!' || byte(end) == '?') ++end;
    } else if (c == '\'') {
      // A clitic that stands alone ("the cats 's").
      for (absl::string_view clitic : {"s", "m", "re", "ve", "d", "ll"}) {
        if (text.substr(at + 1) == clitic) end = text.size();
      }
    }
    tokens->emplace_back(text.substr(at, end - at));
    at = end;
  }
}

// Typographic quotes at the ends of a text without white space are plain ones;
// within it they are part of a word.
std::string PlainQuotes(std::string text) {
  size_t end = text.size();
  while (end > 0 && absl::ascii_ispunct(text[end - 1])) --end;
  if (absl::EndsWith(absl::string_view(text).substr(0, end), kApostrophe))
    text.replace(end - kApostrophe.size(), kApostrophe.size(), "'");
  if (absl::StartsWith(text, kApostrophe))
    text.replace(0, kApostrophe.size(), "'");
  return text;
}

// What COCO's evaluation leaves out. Its list has brackets in capitals, which
// lower-cased tokens never equal, so they stay.
bool IsPunctuation(const std::string& token) {
  static const auto* marks = new std::set<std::string>{
      "'", "\"", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"};
  return marks->count(token) > 0;
}

std::string Bracket(const std::string& token) {
  static const auto* names =
      new std::vector<std::pair<std::string, std::string>>{
          {"(", "-lrb-"}, {")", "-rrb-"}, {"[", "-lsb-"},
          {"]", "-rsb-"}, {"{", "-lcb-"}, {"}", "-rcb-"}};
  for (const auto& [mark, name] : *names) {
    if (token == mark) return name;
  }
  return token;
}

}  // namespace

std::string CaptionTokens(absl::string_view caption) {
  // Typographic marks to plain ones, and currencies to the tokenizer's names.
  const std::string plain =
      absl::StrReplaceAll(caption, {{"\xe2\x80\x98", "'"},
                                    {"\xe2\x80\x9c", "\""},
                                    {"\xe2\x80\x9d", "\""},
                                    {"\xe2\x80\x93", " -- "},
                                    {"\xe2\x80\x94", " -- "},
                                    {"\xe2\x80\xa6", " ... "},
                                    {"\xe2\x82\xac", "$"},
                                    {"\xc2\xa3", "#"},
                                    {"\xc2\xa2", " cents"}});
  Tokens tokens, kept;
  const std::vector<std::string> chunks = SplitUnicodeSpace(LowerUtf8(plain));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const bool number_follows =
        i + 1 < chunks.size() && absl::ascii_isdigit(chunks[i + 1][0]);
    if (chunks[i] == "'tis" || chunks[i] == "'twas") {
      AddWord(chunks[i], &tokens);
    } else if (chunks[i] == "'n'" || (chunks[i] == "no." && number_follows)) {
      tokens.push_back(chunks[i]);
    } else {
      Split(PlainQuotes(chunks[i]), i + 1 == chunks.size(), &tokens);
    }
  }
  for (const std::string& token : tokens) {
    if (!IsPunctuation(token)) kept.push_back(Bracket(token));
  }
  return absl::StrJoin(kept, " ");
}

}  // namespace semvq
