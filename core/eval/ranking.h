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

// The k best columns of every row of `scores` (float [Q, C], finite, on any
// device), best first and the lower column first among equals: int64
// [Q, min(k, C)] on the CPU. (at::topk leaves the order of equals open.)
at::Tensor TopColumns(const at::Tensor& scores, int64_t k);

// The rank of a query's best positive after its first candidates were put in a
// new order. `top` holds the columns of the first k candidates in any order and
// `scores` what they are ordered by now, the lower column first among equals;
// all others stay behind them in their old order. `rank`: of the best positive
// before. `positives` is sorted.
int64_t RerankedRank(const int64_t* top, const double* scores, int64_t k,
                     const std::vector<int64_t>& positives, int64_t rank);

// Median of the ranks counted from 1, the mean of the middle two of an even
// number; 0 without ranks.
double MedianRank(std::vector<int64_t> ranks);

// Percentage of ranks below k.
double RecallAt(const std::vector<int64_t>& ranks, int64_t k);

// Expected RecallAt(k) of a random order: per query
// 1 - C(candidates - p, k) / C(candidates, k) for p positives, averaged.
double ChanceRecallAt(const std::vector<std::vector<int64_t>>& positives,
                      int64_t candidates, int64_t k);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_RANKING_H_
