// Reading any of the dtypes as float64.
#ifndef SEMVQ_KERNELS_CUDA_LOAD_CUH_
#define SEMVQ_KERNELS_CUDA_LOAD_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/codes.h"

namespace semvq {
namespace cuda {

__device__ inline double Wide(double v) { return v; }
__device__ inline double Wide(float v) { return v; }
__device__ inline double Wide(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ inline double Wide(__half v) { return __half2float(v); }

// f(pointer to const of the dtype).
template <class F>
cudaError_t WithType(Dtype type, const void* data, F f) {
  switch (type) {
    case Dtype::kFloat64:
      return f(static_cast<const double*>(data));
    case Dtype::kFloat32:
      return f(static_cast<const float*>(data));
    case Dtype::kBFloat16:
      return f(static_cast<const __nv_bfloat16*>(data));
    case Dtype::kFloat16:
      return f(static_cast<const __half*>(data));
  }
  return cudaErrorInvalidValue;
}

}  // namespace cuda
}  // namespace semvq

#endif  // SEMVQ_KERNELS_CUDA_LOAD_CUH_
