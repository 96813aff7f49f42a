#include "data/image_pattern.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace semvq {
namespace {

constexpr int kMaxWidth = 64;

std::string Braced(const std::vector<std::string>& names) {
  return absl::StrJoin(names, ", ", [](std::string* out, const auto& name) {
    absl::StrAppend(out, "{", name, "}");
  });
}

}  // namespace

absl::StatusOr<ImagePattern> ImagePattern::Parse(
    absl::string_view pattern, const std::vector<std::string>& known) {
  const auto bad = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got \"", pattern, "\": ", why, "; expected a file name with {",
        known[0], "}, as in pictures/{", known[0], ":012}.jpg"));
  };
  ImagePattern result;
  Part part;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '}') return bad("a } without its {");
    if (pattern[i] != '{') {
      part.literal.push_back(pattern[i]);
      continue;
    }
    const size_t end = pattern.find('}', i);
    if (end == absl::string_view::npos) return bad("a { without its }");
    const absl::string_view inside = pattern.substr(i + 1, end - i - 1);
    const size_t colon = inside.find(':');
    part.name = std::string(inside.substr(0, colon));
    if (std::find(known.begin(), known.end(), part.name) == known.end()) {
      return bad(absl::StrCat("{", part.name, "} is none of ", Braced(known)));
    }
    if (colon != absl::string_view::npos) {
      const absl::string_view width = inside.substr(colon + 1);
      if (!absl::StartsWith(width, "0") ||
          !absl::SimpleAtoi(width, &part.width) || part.width < 1 ||
          part.width > kMaxWidth) {
        return bad(absl::StrCat("\":", width, "\" is no width such as :012"));
      }
    }
    result.parts_.push_back(part);
    part = Part();
    i = end;
  }
  result.parts_.push_back(part);
  if (!result.Uses(known[0])) {
    return bad(
        absl::StrCat("it has no {", known[0], "}, so all images would be one"));
  }
  return result;
}

bool ImagePattern::Uses(absl::string_view name) const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [&](const Part& part) { return part.name == name; });
}

absl::StatusOr<std::string> ImagePattern::Fill(
    const std::map<std::string, std::string>& values) const {
  std::string path;
  for (const Part& part : parts_) {
    path += part.literal;
    if (part.name.empty()) continue;
    const std::string& value = values.at(part.name);
    if (value.empty() || absl::StrContains(value, "..") ||
        absl::StrContains(value, '\0') || value[0] == '/') {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part.name, "\": got \"", value,
                       "\", expected a part of a file "
                       "name"));
    }
    const size_t width = static_cast<size_t>(part.width);
    if (width != 0 && value.size() > width) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part.name, "\": got ", value,
                       ", expected at most ", width, " digits"));
    }
    path.append(width > value.size() ? width - value.size() : 0, '0');
    path += value;
  }
  return path;
}

}  // namespace semvq
