// The kernels written as plainly as possible, on CPU: the oracles of tests.
// Shapes, dtypes and corner cases are those of the functions they stand beside;
// inputs are taken to be valid. AssignNearestReference is in assign.h.
#ifndef SEMVQ_KERNELS_REFERENCE_H_
#define SEMVQ_KERNELS_REFERENCE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/assign.h"
#include "kernels/kmeans_step.h"
#include "kernels/scatter.h"

namespace semvq {

at::Tensor HistogramReference(const at::Tensor& codes, int64_t num_codes);

CodeSums CodeStatisticsReference(const at::Tensor& features,
                                 const at::Tensor& codes, int64_t num_codes);

at::Tensor LookupReference(const at::Tensor& codebook, const at::Tensor& codes);

KMeansStepResult KMeansStepReference(const at::Tensor& points,
                                     const at::Tensor& centers,
                                     Metric metric = Metric::kL2);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_REFERENCE_H_
