// Statistics of code assignments.
#ifndef SEMVQ_KERNELS_SCATTER_H_
#define SEMVQ_KERNELS_SCATTER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace semvq {

struct CodeSums {
  at::Tensor counts;  // int64 [K]
  at::Tensor sums;    // [K, D]; float64 for float64 features, else float32.
};

// Number and sum of the features [N, D] of every code. codes: int64 [N] in
// [0, num_codes); negative codes are skipped. On CPU sums run in float64 in
// row order, so they depend on no number of threads. Throws c10::Error on other
// shapes or dtypes, and (on CPU) on codes beyond num_codes.
CodeSums CodeStatistics(const at::Tensor& features, const at::Tensor& codes,
                        int64_t num_codes);

// How often each code occurs: int64 of any shape to int64 [num_codes]. Negative
// codes are skipped. Throws as CodeStatistics does.
at::Tensor Histogram(const at::Tensor& codes, int64_t num_codes);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_SCATTER_H_
