// Images that look for their texts, or texts that look for their images.
#ifndef SEMVQ_TASKS_RETRIEVAL_DIRECTION_H_
#define SEMVQ_TASKS_RETRIEVAL_DIRECTION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace semvq {

// Q queries of one direction and what is known of their candidates.
struct Direction {
  // Right candidates of each query, sorted; at least one.
  std::vector<std::vector<int64_t>> positives;
  // Where the best of them stands by similarity, from 0.
  std::vector<int64_t> ranks;
  // The k best candidates by similarity, best first: int64 [Q, k], and their
  // similarities, float [Q, k]. On the CPU.
  at::Tensor top, similarity;
  // Matching scores of the first of them: double [Q, rerank k], NaN until they
  // are known; undefined when nothing is reranked.
  at::Tensor matching;

  int64_t queries() const { return static_cast<int64_t>(positives.size()); }
};

// So many queries are ranked at once. Where the cut is does not depend on who
// ranks which queries.
inline constexpr int64_t kQueriesAtOnce = 256;

// Ranks the candidates [C, d] of the queries numbered begin (a multiple of
// kQueriesAtOnce) to end - 1 of `queries` [Q, d] by their inner products, and
// keeps the `keep` best of each. Writes only these queries' rows of
// `direction`, whose positives are set and which PrepareRanks has sized: ranks
// may share the queries of one direction. The products are summed in float64
// and rounded to float32, so that equal pairs are equal however they are
// batched. Never holds more than kQueriesAtOnce x C of them. False when a
// product is not finite.
bool RankQueries(const at::Tensor& queries, const at::Tensor& candidates,
                 int64_t begin, int64_t end, Direction* direction);

// Makes room for the ranks and the `keep` best of `candidates` candidates.
void PrepareRanks(int64_t candidates, int64_t keep, Direction* direction);

// The ranks that `matching` gives.
std::vector<int64_t> RerankedRanks(const Direction& direction);

}  // namespace semvq

#endif  // SEMVQ_TASKS_RETRIEVAL_DIRECTION_H_
