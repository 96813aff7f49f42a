// CUDA versions of the kernels: raw pointers and a stream, no LibTorch. All
// pointers are to device memory, dense and row-major. Nothing here waits for
// the device or allocates; results repeat bit by bit. Compute capability 8.0 or
// higher.
#ifndef SEMVQ_KERNELS_CUDA_CODES_H_
#define SEMVQ_KERNELS_CUDA_CODES_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace semvq {
namespace cuda {

enum class Dtype { kFloat64, kFloat32, kBFloat16, kFloat16 };

struct AssignArguments {
  const void* features = nullptr;  // [n, dim]
  Dtype features_type = Dtype::kFloat32;
  int64_t n = 0;
  const void* codebook = nullptr;  // [codes, dim], float64 or float32
  Dtype codebook_type = Dtype::kFloat32;
  int64_t codes = 0;  // 1 to 2^31 - 129
  int64_t dim = 0;    // 1 to 2^31 - 32
  bool cosine = false;
  int multiprocessors = 1;    // Of the device; results do not depend on it.
  int64_t* out = nullptr;     // [n]
  void* workspace = nullptr;  // AssignWorkspaceBytes, aligned to 256.
};

// What kernels/assign.h defines, to the bit. Tensor cores compute scores in
// TF32; per feature the codes within twice a rigorous rounding bound of the
// best are kept, and those are scored in float64. Neither distances nor
// anything else of size n x codes is written.
cudaError_t Assign(const AssignArguments& arguments, cudaStream_t stream);
// The codebook packed once, and some thousand features at a time.
size_t AssignWorkspaceBytes(const AssignArguments& arguments);

// counts [codes] of n values in [0, codes); others are skipped.
cudaError_t Histogram(const int64_t* values, int64_t n, int64_t codes,
                      int64_t* counts, cudaStream_t stream);

struct ScatterArguments {
  const void* features = nullptr;  // [n, dim]
  Dtype type = Dtype::kFloat32;
  int64_t n = 0;  // Below 2^31.
  int64_t dim = 0;
  const int64_t* values =
      nullptr;                // [n]; those outside [0, codes) are skipped.
  int64_t codes = 0;          // Below 2^31.
  int64_t* counts = nullptr;  // [codes]
  void* sums = nullptr;  // [codes, dim]: float64 for float64 features, else
                         // float32. Added up in float64 in row order.
  void* workspace = nullptr;  // ScatterWorkspaceBytes, aligned to 256.
};

cudaError_t Scatter(const ScatterArguments& arguments, cudaStream_t stream);
cudaError_t ScatterWorkspaceBytes(const ScatterArguments& arguments,
                                  size_t* bytes);

}  // namespace cuda
}  // namespace semvq

#endif  // SEMVQ_KERNELS_CUDA_CODES_H_
