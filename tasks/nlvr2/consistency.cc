#include "tasks/nlvr2/consistency.h"

#include <cmath>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace semvq {

absl::StatusOr<std::string> StatementKey(absl::string_view identifier) {
  std::vector<absl::string_view> parts = absl::StrSplit(identifier, '-');
  if (parts.size() < 3) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got the identifier \"", identifier,
        "\", expected split-set-pair-sentence such as \"dev-850-0-1\""));
  }
  parts[2] = "";
  return absl::StrJoin(parts, "-");
}

std::string StatementKey(absl::string_view images, absl::string_view text) {
  const size_t end = images.find("-img0.");
  if (end == absl::string_view::npos) return std::string(text);
  const size_t slash = images.rfind('/', end);
  const size_t begin = slash == absl::string_view::npos ? 0 : slash + 1;
  const absl::string_view pair = images.substr(begin, end - begin);
  const size_t dash = pair.rfind('-');
  return absl::StrCat(
      dash == absl::string_view::npos ? pair : pair.substr(0, dash), "\n",
      text);
}

absl::StatusOr<Consistency> MeasureConsistency(
    const std::vector<JudgedStatement>& examples) {
  if (examples.empty()) {
    return absl::InvalidArgumentError("got no example to measure");
  }
  size_t named = 0;
  for (const JudgedStatement& e : examples) named += !e.identifier.empty();
  if (named > 0 && named < examples.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        named, " of ", examples.size(),
        " examples have an identifier, expected all or none of them"));
  }
  Consistency out;
  out.official = named > 0;
  struct Statement {
    int64_t occurrences = 0;
    bool right = true;
  };
  absl::btree_map<std::string, Statement> statements;
  absl::flat_hash_set<absl::string_view> seen;
  for (const JudgedStatement& e : examples) {
    std::string key;
    if (out.official) {
      if (!seen.insert(e.identifier).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("the identifier \"", e.identifier,
                         "\" occurs twice, expected one example of each"));
      }
      absl::StatusOr<std::string> of_identifier = StatementKey(e.identifier);
      if (!of_identifier.ok()) return of_identifier.status();
      key = *std::move(of_identifier);
    } else {
      key = StatementKey(e.images, e.text);
    }
    Statement& statement = statements[key];
    ++statement.occurrences;
    statement.right = statement.right && e.correct;
  }
  out.statements = static_cast<int64_t>(statements.size());
  for (const auto& [key, statement] : statements) {
    out.consistent += statement.right;
    out.chance += std::pow(0.5, static_cast<double>(statement.occurrences));
  }
  out.chance /= static_cast<double>(out.statements);
  return out;
}

}  // namespace semvq
