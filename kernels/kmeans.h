// Deterministic k-means for codebook initialisation.
#ifndef SEMVQ_KERNELS_KMEANS_H_
#define SEMVQ_KERNELS_KMEANS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/assign.h"

namespace semvq {

struct KMeansOptions {
  int64_t clusters = 0;     // K >= 1.
  int64_t iterations = 10;  // Lloyd steps; 0: the seeding alone.
  // kCosine: spherical k-means; points and centres have unit norm.
  Metric metric = Metric::kL2;
  uint64_t seed = 0;
};

struct KMeansResult {
  at::Tensor centers;  // [K, D], float64 for float64 features, else float32.
  at::Tensor counts;   // int64 [K]: points nearest to each centre.
  // Mean squared distance of a point to its centre, before every Lloyd step and
  // at the end.
  std::vector<double> errors;
};

// k-means of features [N, D] on CPU or, through it, on any device. Seeding is
// k-means++ (Arthur and Vassilvitskii 2007); then Lloyd steps. An empty cluster
// moves to the point farthest from its centre, several to the next ones. With
// fewer distinct points than clusters, centres repeat, and the repeated ones
// stay empty. Points with NaN or infinity are left out. The same input and seed
// give the same bits for any number of threads. Throws c10::Error when no
// finite point is left or `clusters` is below 1.
KMeansResult KMeans(const at::Tensor& features, const KMeansOptions& options);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_KMEANS_H_
