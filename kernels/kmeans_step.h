// One step of Lloyd's k-means.
#ifndef SEMVQ_KERNELS_KMEANS_STEP_H_
#define SEMVQ_KERNELS_KMEANS_STEP_H_

#include <ATen/core/Tensor.h>

#include "kernels/assign.h"

namespace semvq {

struct KMeansStepResult {
  at::Tensor codes;      // int64 [N]: the nearest of the centres given.
  at::Tensor distances;  // float64 [N]: squared, to that centre.
  at::Tensor counts;     // int64 [K]
  // [K, D] as CodeStatistics' sums: the mean of each centre's points, of unit
  // norm under kCosine; a centre without points stays where it was.
  at::Tensor centers;
};

// One Lloyd step of finite points [N, D] (unit vectors under kCosine) and
// centres [K, D], on any device.
KMeansStepResult KMeansStep(const at::Tensor& points, const at::Tensor& centers,
                            Metric metric = Metric::kL2);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_KMEANS_STEP_H_
