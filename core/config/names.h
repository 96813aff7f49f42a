// Near matches for names in messages.
#ifndef SEMVQ_CORE_CONFIG_NAMES_H_
#define SEMVQ_CORE_CONFIG_NAMES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace semvq {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a`
// into `b`; letters' case counts nothing.
int EditDistance(absl::string_view a, absl::string_view b);

// The candidate nearest to `name`; empty when none is near (a third of its
// letters, at least two, may differ).
std::string NearestName(absl::string_view name,
                        const std::vector<std::string>& candidates);

// `; did you mean "fusion"?`, else `; there are: a, b` (at most 20), else
// `; there are none`.
std::string DidYouMean(absl::string_view name,
                       const std::vector<std::string>& candidates);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_NAMES_H_
