#include "core/weights/key_map.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/util/file.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "re2/re2.h"

namespace semvq {
namespace {

constexpr char kLayer[] = "{n}";
constexpr char kPart[] = "{p}";

class Errors : public google::protobuf::io::ErrorCollector {
 public:
  explicit Errors(const std::string& name) : name_(name) {}
  void AddError(int line, int column, const std::string& message) override {
    Add(absl::StrCat(line + 1, ":", column + 1, ": ", message));
  }
  void Add(absl::string_view what) {
    lines_.push_back(absl::StrCat(name_, ":", what));
  }
  bool empty() const { return lines_.empty(); }
  absl::Status ToStatus() const {
    return absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
  }

 private:
  const std::string& name_;
  std::vector<std::string> lines_;
};

int Count(absl::string_view text, absl::string_view part) {
  int count = 0;
  for (size_t at = text.find(part); at != absl::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

void CheckRule(const KeyRule& rule, int index, Errors* errors) {
  const std::string where = absl::StrCat(" rules[", index, "]: ");
  if (rule.ours().empty()) errors->Add(absl::StrCat(where, "no name `ours`"));
  if (std::all_of(rule.theirs().begin(), rule.theirs().end(),
                  [](const std::string& name) { return name.empty(); })) {
    errors->Add(absl::StrCat(where, "no name `theirs`"));
  }
  if (Count(rule.ours(), kLayer) > 1 || Count(rule.ours(), kPart) > 1) {
    errors->Add(
        absl::StrCat(where, "\"", rule.ours(), "\" holds a placeholder twice"));
  }
  int zeros = 0;
  for (const std::string& theirs : rule.theirs()) {
    zeros += theirs.empty();
    for (const char* placeholder : {kLayer, kPart}) {
      // The other way they could not be filled in, this way two of our tensors
      // would be one of theirs.
      if (!theirs.empty() &&
          Count(theirs, placeholder) != Count(rule.ours(), placeholder)) {
        errors->Add(absl::StrCat(where, "\"", theirs, "\" and \"", rule.ours(),
                                 "\" differ in ", placeholder));
      }
    }
  }
  if (zeros > 1) {
    errors->Add(absl::StrCat(where, "more than one empty name in `theirs`"));
  }
}

std::unique_ptr<RE2> Compile(const std::string& pattern,
                             absl::string_view where, Errors* errors) {
  auto compiled = std::make_unique<RE2>(pattern, RE2::Quiet);
  if (!compiled->ok()) {
    errors->Add(absl::StrCat(" ", where, ": \"", pattern,
                             "\" is no RE2 expression: ", compiled->error()));
  }
  return compiled;
}

bool AnyMatch(const std::vector<std::unique_ptr<RE2>>& patterns,
              const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&name](const auto& p) {
    return RE2::FullMatch(name, *p);
  });
}

}  // namespace

KeyNames::KeyNames() : map_(std::make_unique<KeyMap>()) {}
KeyNames::KeyNames(KeyNames&&) = default;
KeyNames& KeyNames::operator=(KeyNames&&) = default;
KeyNames::~KeyNames() = default;

absl::StatusOr<KeyNames> KeyNames::Parse(const std::string& text,
                                         const std::string& name) {
  KeyNames names;
  Errors errors(name);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (!parser.ParseFromString(text, names.map_.get()) || !errors.empty()) {
    return errors.ToStatus();
  }
  const KeyMap& map = *names.map_;
  for (int i = 0; i < map.rules_size(); ++i) {
    CheckRule(map.rules(i), i, &errors);
    names.ours_.push_back(std::make_unique<RE2>(
        absl::StrReplaceAll(RE2::QuoteMeta(map.rules(i).ours()),
                            {{RE2::QuoteMeta(kLayer), "(?P<n>[0-9]{1,9})"},
                             {RE2::QuoteMeta(kPart), "(?P<p>[^.]+)"}})));
  }
  for (const KeyRename& rename : map.renames()) {
    names.renames_.push_back(Compile(rename.pattern(), "renames", &errors));
    std::string problem;
    if (names.renames_.back()->ok() &&
        !names.renames_.back()->CheckRewriteString(rename.with(), &problem)) {
      errors.Add(
          absl::StrCat(" renames: with \"", rename.with(), "\": ", problem));
    }
  }
  for (const std::string& pattern : map.unused()) {
    names.unused_.push_back(Compile(pattern, "unused", &errors));
  }
  for (const std::string& pattern : map.ours_only()) {
    names.ours_only_.push_back(Compile(pattern, "ours_only", &errors));
  }
  if (map.rules().empty()) errors.Add(" no rules");
  if (!errors.empty()) return errors.ToStatus();
  return names;
}

absl::StatusOr<KeyNames> KeyNames::Load(const std::string& path) {
  auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  return Parse(*text, path);
}

std::vector<KeyNames::Match> KeyNames::Find(const std::string& ours,
                                            int64_t first_layer) const {
  std::vector<Match> matches;
  for (size_t i = 0; i < ours_.size(); ++i) {
    const RE2& pattern = *ours_[i];
    // In the order of their groups, at most one of each name.
    std::string groups[2];
    const RE2::Arg args[] = {&groups[0], &groups[1]};
    const RE2::Arg* const arguments[] = {&args[0], &args[1]};
    if (!RE2::FullMatchN(ours, pattern, arguments,
                         pattern.NumberOfCapturingGroups())) {
      continue;
    }
    std::vector<std::pair<std::string, std::string>> values;
    for (const auto& [group, index] : pattern.NamedCapturingGroups()) {
      std::string value = groups[index - 1];
      if (group == "n") {
        int64_t layer = 0;
        if (!absl::SimpleAtoi(value, &layer)) continue;
        value = absl::StrCat(layer + first_layer);
      }
      values.emplace_back(absl::StrCat("{", group, "}"), value);
    }
    Match match{&map_->rules(static_cast<int>(i)), {}};
    for (const std::string& theirs : match.rule->theirs()) {
      match.theirs.push_back(absl::StrReplaceAll(theirs, values));
    }
    matches.push_back(std::move(match));
  }
  return matches;
}

std::string KeyNames::Canonical(std::string theirs) const {
  for (size_t i = 0; i < renames_.size(); ++i) {
    RE2::GlobalReplace(&theirs, *renames_[i],
                       map_->renames(static_cast<int>(i)).with());
  }
  return theirs;
}

bool KeyNames::IsOursOnly(const std::string& ours) const {
  return AnyMatch(ours_only_, ours);
}

bool KeyNames::IsUnused(const std::string& theirs) const {
  return AnyMatch(unused_, theirs);
}

absl::StatusOr<std::string> FindKeyMap(
    const std::string& name, const std::string& working_folder,
    const std::vector<std::string>& config_folders) {
  std::vector<std::string> places = {JoinPath(working_folder, name)};
  for (const std::string& folder : config_folders) {
    places.push_back(JoinPath(folder, name));
  }
  for (const std::string& place : places) {
    if (PathExists(place) && !IsDirectory(place)) return place;
  }
  return absl::NotFoundError(absl::StrCat(
      "no key map ", name, "; looked at ", absl::StrJoin(places, ", "),
      ". configs/key_maps holds those that come along"));
}

}  // namespace semvq
