#include "core/eval/ranking.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <numeric>

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

at::Tensor TopColumns(const at::Tensor& scores, int64_t k) {
  const at::Tensor table = scores.to(at::kCPU, at::kFloat).contiguous();
  const int64_t queries = table.size(0), candidates = table.size(1);
  const int64_t kept = std::min(k, candidates);
  at::Tensor best = at::empty({queries, kept}, at::kLong);
  const float* all = table.data_ptr<float>();
  int64_t* out = best.data_ptr<int64_t>();
  at::parallel_for(0, queries, 16, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> order(candidates);
    for (int64_t q = begin; q < end; ++q) {
      const float* row = all + q * candidates;
      const auto before = [row](int64_t a, int64_t b) {
        return row[a] > row[b] || (row[a] == row[b] && a < b);
      };
      std::iota(order.begin(), order.end(), 0);
      std::nth_element(order.begin(), order.begin() + kept, order.end(),
                       before);
      std::sort(order.begin(), order.begin() + kept, before);
      std::copy_n(order.begin(), kept, out + q * kept);
    }
  });
  return best;
}

int64_t RerankedRank(const int64_t* top, const double* scores, int64_t k,
                     const std::vector<int64_t>& positives, int64_t rank) {
  const auto before = [&](int64_t a, int64_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && top[a] < top[b]);
  };
  int64_t best = -1;
  for (int64_t j = 0; j < k; ++j) {
    if (!std::binary_search(positives.begin(), positives.end(), top[j]))
      continue;
    if (best < 0 || before(j, best)) best = j;
  }
  if (best < 0) return rank;
  int64_t ahead = 0;
  for (int64_t j = 0; j < k; ++j) ahead += before(j, best);
  return ahead;
}

double MedianRank(std::vector<int64_t> ranks) {
  if (ranks.empty()) return 0;
  std::sort(ranks.begin(), ranks.end());
  const size_t n = ranks.size();
  return 1 + (static_cast<double>(ranks[(n - 1) / 2]) +
              static_cast<double>(ranks[n / 2])) /
                 2;
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
