// LibTorch's side of kernels/cuda/codes.h; only in builds with --config=cuda.
#ifndef SEMVQ_KERNELS_CUDA_DISPATCH_H_
#define SEMVQ_KERNELS_CUDA_DISPATCH_H_

#ifdef SEMVQ_CUDA
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/assign.h"
#include "kernels/scatter.h"

namespace semvq {
namespace internal {

// Whether the tensor is on a CUDA device of compute capability 8.0 or higher.
bool HasCudaKernels(const at::Tensor& tensor);

// As the functions without "Cuda", which check the arguments first. They work
// on the current stream and never wait for it.
at::Tensor AssignNearestCuda(const at::Tensor& features,
                             const at::Tensor& codebook, Metric metric);
at::Tensor HistogramCuda(const at::Tensor& codes, int64_t num_codes);
CodeSums CodeStatisticsCuda(const at::Tensor& features, const at::Tensor& codes,
                            int64_t num_codes);

}  // namespace internal
}  // namespace semvq
#endif  // SEMVQ_CUDA

#endif  // SEMVQ_KERNELS_CUDA_DISPATCH_H_
