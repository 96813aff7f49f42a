// Nearest codes in several codebooks at once.
#ifndef SEMVQ_KERNELS_GROUPED_H_
#define SEMVQ_KERNELS_GROUPED_H_

#include <ATen/core/Tensor.h>

#include "kernels/assign.h"

namespace semvq {

// Product quantisation: group g of every feature against the codebook of g.
// features [..., G, D] and codebooks [G, K, D] to int64 [..., G]. (With one
// codebook for all groups, AssignNearest on the rows does it.) Exactness,
// dtypes and errors are those of AssignNearest.
at::Tensor AssignNearestGrouped(const at::Tensor& features,
                                const at::Tensor& codebooks,
                                Metric metric = Metric::kL2);

// A codebook for each element of a batch: features [B, N, D] and codebooks
// [B, K, D] to int64 [B, N].
at::Tensor AssignNearestBatched(const at::Tensor& features,
                                const at::Tensor& codebooks,
                                Metric metric = Metric::kL2);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_GROUPED_H_
