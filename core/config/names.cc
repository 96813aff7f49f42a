#include "core/config/names.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace semvq {
namespace {

constexpr size_t kLongestName = 100;  // Longer ones are no typing mistakes.
constexpr size_t kMostListed = 20;

}  // namespace

int EditDistance(absl::string_view a, absl::string_view b) {
  const size_t n = b.size();
  // Rows i - 2, i - 1 and i of the table.
  std::vector<int> before(n + 1), last(n + 1), row(n + 1);
  for (size_t j = 0; j <= n; ++j) last[j] = static_cast<int>(j);
  const auto same = [](char x, char y) {
    return absl::ascii_tolower(x) == absl::ascii_tolower(y);
  };
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= n; ++j) {
      const int change = same(a[i - 1], b[j - 1]) ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + change});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) &&
          same(a[i - 2], b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[n];
}

std::string NearestName(absl::string_view name,
                        const std::vector<std::string>& candidates) {
  if (name.size() > kLongestName) return "";
  int best = std::max<int>(2, static_cast<int>(name.size()) / 3) + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongestName) continue;
    const int distance = EditDistance(name, candidate);
    // A short name is not near to one it shares nothing with.
    if (distance < best && distance < static_cast<int>(candidate.size())) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string DidYouMean(absl::string_view name,
                       const std::vector<std::string>& candidates) {
  if (candidates.empty()) return "; there are none";
  const std::string nearest = NearestName(name, candidates);
  if (!nearest.empty())
    return absl::StrCat("; did you mean \"", nearest, "\"?");
  const size_t listed = std::min(candidates.size(), kMostListed);
  return absl::StrCat(
      "; there are: ",
      absl::StrJoin(candidates.begin(), candidates.begin() + listed, ", "),
      listed < candidates.size() ? ", ..." : "");
}

}  // namespace semvq
