#include "kernels/kmeans.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/kmeans_step.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

// Rows whose distances are summed together: the order of every sum is fixed.
constexpr int64_t kBlock = 256;

// In [0, 1).
double Uniform(std::mt19937_64& engine) {
  return static_cast<double>(engine() >> 11) * 0x1.0p-53;
}

at::Tensor Normalized(const at::Tensor& points) {
  const at::Tensor wide = points.to(at::kDouble);
  return (wide / wide.square().sum(1, true).sqrt().clamp_min(1e-300))
      .to(points.scalar_type());
}

// k-means++: every next centre is a point drawn with probability proportional
// to its squared distance to the centres so far. Returns the points' rows.
std::vector<int64_t> Seed(const at::Tensor& points, int64_t clusters,
                          std::mt19937_64& engine) {
  const int64_t n = points.size(0), dim = points.size(1);
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  const at::Tensor wide = points.to(at::kDouble).contiguous();
  const double* rows = wide.const_data_ptr<double>();
  // [block][D][kBlock], so that the inner loop runs over rows.
  std::vector<double> packed(blocks * dim * kBlock, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t d = 0; d < dim; ++d)
      packed[(i / kBlock * dim + d) * kBlock + i % kBlock] = rows[i * dim + d];
  }
  std::vector<double> nearest(blocks * kBlock, 0.0);
  std::fill(nearest.begin(), nearest.begin() + n,
            std::numeric_limits<double>::infinity());
  std::vector<double> block_sum(blocks);

  std::vector<int64_t> chosen;
  chosen.push_back(static_cast<int64_t>(Uniform(engine) * n));
  while (static_cast<int64_t>(chosen.size()) < clusters) {
    const double* center = rows + chosen.back() * dim;
    at::parallel_for(
        0, blocks, 1 + 32768 / (kBlock * dim), [&](int64_t begin, int64_t end) {
          for (int64_t b = begin; b < end; ++b) {
            double distance[kBlock] = {};
            for (int64_t d = 0; d < dim; ++d) {
              const double* column = packed.data() + (b * dim + d) * kBlock;
              const double c = center[d];
              for (int64_t i = 0; i < kBlock; ++i)
                distance[i] += (column[i] - c) * (column[i] - c);
            }
            double* least = nearest.data() + b * kBlock;
            double sum = 0;
            for (int64_t i = 0; i < kBlock; ++i) {
              least[i] = std::min(least[i], distance[i]);
              sum += least[i];
            }
            block_sum[b] = sum;
          }
        });
    const double total =
        std::accumulate(block_sum.begin(), block_sum.end(), 0.0);
    const double u = Uniform(engine);
    int64_t next = static_cast<int64_t>(u * n);
    if (total > 0 && std::isfinite(total)) {
      double left = u * total;
      int64_t b = 0;
      while (b + 1 < blocks && left >= block_sum[b]) left -= block_sum[b++];
      // Rounding may leave more than the block holds: then its last point that
      // is no centre yet.
      const int64_t last = std::min(n, (b + 1) * kBlock);
      for (int64_t i = b * kBlock; i < last; ++i) {
        if (nearest[i] > 0) next = i;
        left -= nearest[i];
        if (left < 0) break;
      }
    }
    chosen.push_back(next);
  }
  return chosen;
}

// Squared distance of every point to its centre, float64 [N].
at::Tensor SquaredDistances(const at::Tensor& points, const at::Tensor& centers,
                            const at::Tensor& codes) {
  return (points.to(at::kDouble) -
          centers.index_select(0, codes).to(at::kDouble))
      .square()
      .sum(1);
}

// Moves empty clusters to the points farthest from their centres.
void ReseedEmpty(const at::Tensor& points, const at::Tensor& counts,
                 const at::Tensor& distances, at::Tensor* centers) {
  const int64_t* count = counts.const_data_ptr<int64_t>();
  const double* distance = distances.const_data_ptr<double>();
  std::vector<int64_t> empty;
  for (int64_t k = 0; k < counts.size(0); ++k) {
    if (count[k] == 0) empty.push_back(k);
  }
  if (empty.empty()) return;
  std::vector<int64_t> order(points.size(0));
  std::iota(order.begin(), order.end(), int64_t{0});
  const size_t wanted = std::min(empty.size(), order.size());
  std::partial_sort(
      order.begin(), order.begin() + wanted, order.end(),
      [&](int64_t a, int64_t b) {
        return distance[a] != distance[b] ? distance[a] > distance[b] : a < b;
      });
  for (size_t i = 0; i < wanted && distance[order[i]] > 0; ++i)
    centers->select(0, empty[i]).copy_(points.select(0, order[i]));
}

}  // namespace

KMeansStepResult KMeansStep(const at::Tensor& points, const at::Tensor& centers,
                            Metric metric) {
  c10::NoGradGuard no_grad;
  KMeansStepResult out;
  out.codes = AssignNearest(points, centers, metric);
  out.distances = SquaredDistances(points, centers, out.codes);
  const CodeSums stats = CodeStatistics(points, out.codes, centers.size(0));
  out.counts = stats.counts;
  const at::Tensor count = stats.counts.unsqueeze(1);
  at::Tensor moved =
      stats.sums / count.clamp_min(1).to(stats.sums.scalar_type());
  if (metric == Metric::kCosine) moved = Normalized(moved);
  out.centers =
      at::where(count > 0, moved, centers.to(stats.sums.scalar_type()));
  return out;
}

KMeansResult KMeans(const at::Tensor& features, const KMeansOptions& options) {
  TORCH_CHECK(features.dim() == 2 && features.is_floating_point(),
              "KMeans: expected floating-point features [N, D], got ",
              features.scalar_type(), " ", features.sizes());
  TORCH_CHECK(options.clusters >= 1,
              "KMeans: expected at least 1 cluster, got ", options.clusters);
  c10::NoGradGuard no_grad;
  const at::ScalarType type =
      features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor points = features.detach().cpu().to(type);
  points = points.index({points.isfinite().all(1)}).contiguous();
  TORCH_CHECK(points.size(0) > 0, "KMeans: none of the ", features.size(0),
              " points is finite");
  const bool spherical = options.metric == Metric::kCosine;
  if (spherical) points = Normalized(points);

  std::mt19937_64 engine(options.seed);
  const std::vector<int64_t> seeds = Seed(points, options.clusters, engine);
  at::Tensor centers =
      points
          .index_select(0, at::tensor(at::ArrayRef<int64_t>(seeds), at::kLong))
          .clone();

  KMeansResult result;
  for (int64_t i = 0;; ++i) {
    const KMeansStepResult step = KMeansStep(points, centers, options.metric);
    result.errors.push_back(step.distances.mean().item<double>());
    if (i == options.iterations) {
      result.counts = step.counts;
      break;
    }
    centers = step.centers;
    ReseedEmpty(points, step.counts, step.distances, &centers);
  }
  result.centers = centers.to(features.device());
  result.counts = result.counts.to(features.device());
  return result;
}

}  // namespace semvq
