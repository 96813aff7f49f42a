#include "core/task/label_set.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace semvq {

LabelSet::LabelSet(std::vector<std::string> names, std::string ignored)
    : names_(std::move(names)), ignored_(std::move(ignored)) {}

absl::StatusOr<int64_t> LabelSet::ClassOf(const TextRecord& record) const {
  const std::string expected =
      absl::StrCat("expected one of ", absl::StrJoin(names_, ", "));
  if (record.answers.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        Describe(record), ": got ",
        record.answers.empty() ? "no label"
                               : absl::StrCat(record.answers.size(), " labels"),
        ", ", expected));
  }
  const std::string& got = record.answers[0].first;
  for (int64_t i = 0; i < size(); ++i) {
    if (absl::EqualsIgnoreCase(got, names_[i])) return i;
  }
  if (!ignored_.empty() && got == ignored_) return kIgnored;
  return absl::InvalidArgumentError(absl::StrCat(
      Describe(record), ": got the label \"", got, "\", ", expected));
}

std::string Describe(const TextRecord& record) {
  return absl::StrCat(
      "the text \"", record.text, "\"",
      record.id.empty() ? "" : absl::StrCat(" (", record.id, ")"));
}

}  // namespace semvq
