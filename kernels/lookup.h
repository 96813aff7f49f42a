// Codes to vectors, with a backward that repeats bit by bit.
#ifndef SEMVQ_KERNELS_LOOKUP_H_
#define SEMVQ_KERNELS_LOOKUP_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// Rows of codebook [K, D] for codes int64 of any shape [...]: [..., D].
// Negative codes give zeros. Differentiable in the codebook, any number of
// times: the gradient of a code is the sum, by CodeStatistics, of what arrives
// at its places, where index_select's would be added up in the codebook's dtype
// and, on a GPU, in any order. Throws c10::Error on other shapes or dtypes and
// (on CPU) on codes of K and beyond.
at::Tensor LookupCodes(const at::Tensor& codebook, const at::Tensor& codes);

}  // namespace semvq

#endif  // SEMVQ_KERNELS_LOOKUP_H_
