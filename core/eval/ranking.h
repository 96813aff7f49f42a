// Ranking measures that retrieval-like tasks share.
#ifndef SEMVQ_CORE_EVAL_RANKING_H_
#define SEMVQ_CORE_EVAL_RANKING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace semvq {

// For every row of `scores` (float [Q, C]) the rank, from 0, of its best
// positive: how many candidates stand before it. Among equal scores the lower
// column stands first. `positives[q]` lists columns and must not be empty.
std::vector<int64_t> BestPositiveRanks(
    const at::Tensor& scores,
    const std::vector<std::vector<int64_t>>& positives);

// Percentage of ranks below k.
double RecallAt(const std::vector<int64_t>& ranks, int64_t k);

// Expected RecallAt(k) of a random order: per query
// 1 - C(candidates - p, k) / C(candidates, k) for p positives, averaged.
double ChanceRecallAt(const std::vector<std::vector<int64_t>>& positives,
                      int64_t candidates, int64_t k);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_RANKING_H_
