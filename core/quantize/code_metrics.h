// Measures of how a codebook is used.
#ifndef SEMVQ_CORE_QUANTIZE_CODE_METRICS_H_
#define SEMVQ_CORE_QUANTIZE_CODE_METRICS_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// All take a histogram [K] (any dtype, how often each code occurs) and return a
// float32 scalar on its device, without waiting for it.

// exp of the entropy of the codes' shares: K when all are equally frequent, 1
// when one code takes all, 0 for an empty histogram.
at::Tensor Perplexity(const at::Tensor& histogram);

// Share of the codes that occur.
at::Tensor UsedShare(const at::Tensor& histogram);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_CODE_METRICS_H_
