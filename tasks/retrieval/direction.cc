#include "tasks/retrieval/direction.h"

#include <torch/types.h>

#include <algorithm>

#include "core/eval/ranking.h"

namespace semvq {

void PrepareRanks(int64_t candidates, int64_t keep, Direction* direction) {
  const int64_t queries = direction->queries();
  const int64_t kept = std::min(keep, candidates);
  direction->ranks.assign(queries, -1);
  direction->top = at::zeros({queries, kept}, at::kLong);
  direction->similarity = at::zeros({queries, kept}, at::kFloat);
}

bool RankQueries(const at::Tensor& queries, const at::Tensor& candidates,
                 int64_t begin, int64_t end, Direction* direction) {
  TORCH_CHECK(begin % kQueriesAtOnce == 0, "RankQueries: begins at ", begin);
  const at::Tensor wide = candidates.to(at::kDouble).t();
  const int64_t kept = direction->top.size(1);
  for (int64_t first = begin; first < end; first += kQueriesAtOnce) {
    const int64_t n = std::min(kQueriesAtOnce, end - first);
    const at::Tensor scores =
        at::matmul(queries.narrow(0, first, n).to(at::kDouble), wide)
            .to(at::kFloat)
            .to(at::kCPU);
    if (!scores.isfinite().all().item<bool>()) return false;
    const std::vector<int64_t> ranks =
        BestPositiveRanks(scores, {direction->positives.begin() + first,
                                   direction->positives.begin() + first + n});
    std::copy(ranks.begin(), ranks.end(), direction->ranks.begin() + first);
    if (kept == 0) continue;
    const at::Tensor best = TopColumns(scores, kept);
    direction->top.narrow(0, first, n).copy_(best);
    direction->similarity.narrow(0, first, n).copy_(scores.gather(1, best));
  }
  return true;
}

std::vector<int64_t> RerankedRanks(const Direction& direction) {
  const at::Tensor scores = direction.matching.contiguous();
  const at::Tensor top =
      direction.top.narrow(1, 0, scores.size(1)).contiguous();
  const int64_t k = scores.size(1);
  std::vector<int64_t> ranks;
  ranks.reserve(direction.ranks.size());
  for (int64_t q = 0; q < direction.queries(); ++q) {
    ranks.push_back(RerankedRank(top.data_ptr<int64_t>() + q * k,
                                 scores.data_ptr<double>() + q * k, k,
                                 direction.positives[q], direction.ranks[q]));
  }
  return ranks;
}

}  // namespace semvq
