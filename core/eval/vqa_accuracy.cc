#include "core/eval/vqa_accuracy.h"

#include <algorithm>
#include <cmath>

namespace semvq {

double VqaAccuracy(absl::string_view answer, const TextRecord& question) {
  double share = 0;
  for (const auto& [given, weight] : question.answers) {
    if (given == answer) share += weight;
  }
  const double n = question.annotators;
  if (n <= 1) return share > 0 ? 1 : 0;
  const double matches = std::round(share * n);
  // Leaving out one who gave the answer leaves matches - 1.
  const double with = std::min(1.0, std::max(0.0, matches - 1) / 3);
  const double without = std::min(1.0, matches / 3);
  return (matches * with + (n - matches) * without) / n;
}

}  // namespace semvq
