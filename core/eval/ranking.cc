#include "core/eval/ranking.h"

#include <torch/types.h>

#include <algorithm>

namespace semvq {

std::vector<int64_t> BestPositiveRanks(
    const at::Tensor& scores,
    const std::vector<std::vector<int64_t>>& positives) {
  const at::Tensor table = scores.to(at::kCPU, at::kDouble).contiguous();
  const int64_t candidates = table.size(1);
  std::vector<int64_t> ranks;
  ranks.reserve(positives.size());
  for (size_t q = 0; q < positives.size(); ++q) {
    const double* row = table.data_ptr<double>() + q * candidates;
    int64_t best = positives[q].front();
    for (int64_t c : positives[q]) {
      if (row[c] > row[best] || (row[c] == row[best] && c < best)) best = c;
    }
    int64_t before = 0;
    for (int64_t c = 0; c < candidates; ++c) {
      before += row[c] > row[best] || (row[c] == row[best] && c < best);
    }
    ranks.push_back(before);
  }
  return ranks;
}

double RecallAt(const std::vector<int64_t>& ranks, int64_t k) {
  if (ranks.empty()) return 0;
  const auto hits = std::count_if(ranks.begin(), ranks.end(),
                                  [k](int64_t rank) { return rank < k; });
  return 100.0 * static_cast<double>(hits) / static_cast<double>(ranks.size());
}

double ChanceRecallAt(const std::vector<std::vector<int64_t>>& positives,
                      int64_t candidates, int64_t k) {
  if (positives.empty()) return 0;
  double sum = 0;
  for (const std::vector<int64_t>& p : positives) {
    double miss = 1;
    const auto negatives = candidates - static_cast<int64_t>(p.size());
    for (int64_t i = 0; i < std::min(k, candidates); ++i) {
      miss *= std::max<double>(0, static_cast<double>(negatives - i)) /
              static_cast<double>(candidates - i);
    }
    sum += 1 - miss;
  }
  return 100.0 * sum / static_cast<double>(positives.size());
}

}  // namespace semvq
