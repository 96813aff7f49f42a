#include "data/shard_names.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace semvq {
namespace {

constexpr size_t kMaxNames = 1000000;

bool IsDigits(absl::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// What stands between braces, as a list; empty when it is no such list.
absl::StatusOr<std::vector<std::string>> Alternatives(absl::string_view inner) {
  std::vector<std::string> out;
  const size_t dots = inner.find("..");
  if (dots != absl::string_view::npos) {
    const absl::string_view first = inner.substr(0, dots),
                            last = inner.substr(dots + 2);
    int64_t from = 0, to = 0;
    if (!IsDigits(first) || !IsDigits(last) ||
        !absl::SimpleAtoi(first, &from) || !absl::SimpleAtoi(last, &to)) {
      return out;
    }
    if (from > to || to - from >= static_cast<int64_t>(kMaxNames)) {
      return absl::InvalidArgumentError(
          absl::StrCat("{", inner,
                       "}: expected a range that runs forwards, of "
                       "at most ",
                       kMaxNames, " numbers"));
    }
    const bool padded = first.size() > 1 && first[0] == '0';
    for (int64_t i = from; i <= to; ++i) {
      std::string number = absl::StrCat(i);
      if (padded && number.size() < first.size())
        number.insert(0, first.size() - number.size(), '0');
      out.push_back(std::move(number));
    }
  } else if (absl::StrContains(inner, ",")) {
    out = absl::StrSplit(inner, ',');
  }
  return out;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ExpandBraces(absl::string_view name) {
  std::vector<std::string> names = {""};
  while (!name.empty()) {
    size_t open = 0;
    while ((open = name.find('{', open)) != absl::string_view::npos &&
           open > 0 && name[open - 1] == '$') {
      ++open;
    }
    const size_t close =
        open == absl::string_view::npos ? open : name.find('}', open);
    std::vector<std::string> tails;
    absl::string_view head = name;
    if (close != absl::string_view::npos) {
      auto found = Alternatives(name.substr(open + 1, close - open - 1));
      if (!found.ok()) return found.status();
      tails = *std::move(found);
      head = name.substr(0, tails.empty() ? close + 1 : open);
      name.remove_prefix(close + 1);
    } else {
      name = "";
    }
    if (tails.empty()) tails = {""};
    if (names.size() * tails.size() > kMaxNames) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", kMaxNames, " names"));
    }
    std::vector<std::string> longer;
    longer.reserve(names.size() * tails.size());
    for (const std::string& begin : names) {
      for (const std::string& tail : tails)
        longer.push_back(absl::StrCat(begin, head, tail));
    }
    names = std::move(longer);
  }
  return names;
}

bool IsCommand(absl::string_view shard) {
  return absl::StartsWith(shard, "pipe:");
}

absl::StatusOr<std::vector<std::string>> CommandWords(
    absl::string_view command) {
  absl::ConsumePrefix(&command, "pipe:");
  std::vector<std::string> words;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < command.size(); ++i) {
    const char c = command[i];
    if (quote == 0 && absl::ascii_isspace(c)) {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (quote == 0 && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == quote) {
      quote = 0;
    } else if (c == '\\' && quote != '\'' && i + 1 < command.size()) {
      words.back().push_back(command[++i]);
    } else {
      words.back().push_back(c);
    }
  }
  if (quote != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the command ", command, " has a quote that does not end"));
  }
  if (words.empty() || words[0].empty()) {
    return absl::InvalidArgumentError(
        "got an empty command, expected as in pipe:aws s3 cp s3://b/{0..9}.tar "
        "-");
  }
  return words;
}

}  // namespace semvq
