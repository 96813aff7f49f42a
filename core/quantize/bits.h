// Codes made of bits, and entropies of independent bits. Bit d of a row is 1
// with probability sigmoid(logits[m, d]); the first bit is the highest of a
// code, as in the field's public implementations.
#ifndef SEMVQ_CORE_QUANTIZE_BITS_H_
#define SEMVQ_CORE_QUANTIZE_BITS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/quantize/rows.h"

namespace semvq {

// bool [M, L], 1 <= L <= 62, to int64 [M].
at::Tensor CodesOfBits(const at::Tensor& bits);
// int64 [M] to bool [M, length].
at::Tensor BitsOfCodes(const at::Tensor& codes, int64_t length);

// Both in nats, differentiable, over the valid rows of logits [M, L]; 0 when
// none is valid. E is the mean over all ranks' rows, as in SoftCodes.

// E[H(p)] of a row's distribution p over all 2^L codes. Exact: the entropy of
// independent bits is the sum of theirs.
at::Tensor MeanBitEntropy(const at::Tensor& logits, const FeatureRows& rows);

// H(E[p]), over the codes that `together` bits in a row make at a time, summed
// over such runs of bits. With together >= L that is the entropy over all 2^L
// codes, else a bound from above, exact where the runs are independent of each
// other (1: every bit for itself). Memory: M x 2 x 2^(together / 2) and
// 2^together entries for each run; M x 2^together are never made.
at::Tensor EntropyOfMeanBits(const at::Tensor& logits, const FeatureRows& rows,
                             int64_t together);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_BITS_H_
