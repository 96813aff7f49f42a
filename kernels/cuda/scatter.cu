// Counts and sums of features by code.
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/codes.h"
#include "kernels/cuda/load.cuh"

namespace semvq {
namespace cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

__global__ void Count(const int64_t* values, int64_t n, int64_t codes,
                      int64_t* counts) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n || values[i] < 0 || values[i] >= codes) return;
  // Integers add up to the same in any order.
  atomicAdd(reinterpret_cast<unsigned long long*>(counts + values[i]), 1ULL);
}

// What is skipped gets the key behind all codes.
__global__ void Keys(const int64_t* values, int64_t n, int64_t codes, int* keys,
                     int* rows) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t value = values[i];
  keys[i] = static_cast<int>(value < 0 || value >= codes ? codes : value);
  rows[i] = static_cast<int>(i);
}

// The first place of a key that is not less.
__device__ int64_t LowerBound(const int* keys, int64_t n, int key) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// A block per code; a thread adds one dimension up, row by row.
template <class T, class S>
__global__ void Sum(const T* features, int64_t n, int64_t dim, const int* keys,
                    const int* rows, int64_t* counts, S* sums) {
  __shared__ int64_t range[2];
  const int code = static_cast<int>(blockIdx.x);
  if (threadIdx.x < 2)
    range[threadIdx.x] =
        LowerBound(keys, n, code + static_cast<int>(threadIdx.x));
  __syncthreads();
  const int64_t begin = range[0], end = range[1];
  if (threadIdx.x == 0) counts[code] = end - begin;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    double sum = 0;
#pragma unroll 8
    for (int64_t i = begin; i < end; ++i)
      sum = __dadd_rn(sum, Wide(features[rows[i] * dim + d]));
    sums[code * dim + d] = static_cast<S>(sum);
  }
}

int Bits(int64_t codes) {
  int bits = 1;
  while ((int64_t{1} << bits) <= codes) ++bits;
  return bits;
}

struct Workspace {
  int *keys, *rows, *sorted_keys, *sorted_rows;
  void* sort;
  size_t sort_bytes, total;
};

cudaError_t Layout(const ScatterArguments& a, Workspace* w) {
  const size_t array = (a.n * sizeof(int) + 255) / 256 * 256;
  char* base = static_cast<char*>(a.workspace);
  w->keys = reinterpret_cast<int*>(base);
  w->rows = reinterpret_cast<int*>(base + array);
  w->sorted_keys = reinterpret_cast<int*>(base + 2 * array);
  w->sorted_rows = reinterpret_cast<int*>(base + 3 * array);
  w->sort = base + 4 * array;
  w->sort_bytes = 0;
  const cudaError_t status = cub::DeviceRadixSort::SortPairs(
      nullptr, w->sort_bytes, static_cast<const int*>(nullptr),
      static_cast<int*>(nullptr), static_cast<const int*>(nullptr),
      static_cast<int*>(nullptr), static_cast<int>(a.n), 0, Bits(a.codes));
  w->total = 4 * array + w->sort_bytes + 256;
  return status;
}

}  // namespace

cudaError_t Histogram(const int64_t* values, int64_t n, int64_t codes,
                      int64_t* counts, cudaStream_t stream) {
  const cudaError_t status =
      cudaMemsetAsync(counts, 0, codes * sizeof(int64_t), stream);
  if (status != cudaSuccess || n == 0) return status;
  Count<<<Blocks(n), kThreads, 0, stream>>>(values, n, codes, counts);
  return cudaGetLastError();
}

cudaError_t ScatterWorkspaceBytes(const ScatterArguments& arguments,
                                  size_t* bytes) {
  Workspace w;
  const cudaError_t status = Layout(arguments, &w);
  *bytes = w.total;
  return status;
}

cudaError_t Scatter(const ScatterArguments& a, cudaStream_t stream) {
  Workspace w;
  cudaError_t status = Layout(a, &w);
  if (status != cudaSuccess) return status;
  if (a.n > 0) {
    Keys<<<Blocks(a.n), kThreads, 0, stream>>>(a.values, a.n, a.codes, w.keys,
                                               w.rows);
    // Stable, so rows of a code stay in order.
    status = cub::DeviceRadixSort::SortPairs(
        w.sort, w.sort_bytes, w.keys, w.sorted_keys, w.rows, w.sorted_rows,
        static_cast<int>(a.n), 0, Bits(a.codes), stream);
    if (status != cudaSuccess) return status;
  }
  const unsigned threads = a.dim >= kThreads
                               ? kThreads
                               : static_cast<unsigned>((a.dim + 31) / 32 * 32);
  return WithType(a.type, a.features, [&](auto* features) {
    const unsigned blocks = static_cast<unsigned>(a.codes);
    if (a.type == Dtype::kFloat64) {
      Sum<<<blocks, threads, 0, stream>>>(features, a.n, a.dim, w.sorted_keys,
                                          w.sorted_rows, a.counts,
                                          static_cast<double*>(a.sums));
    } else {
      Sum<<<blocks, threads, 0, stream>>>(features, a.n, a.dim, w.sorted_keys,
                                          w.sorted_rows, a.counts,
                                          static_cast<float*>(a.sums));
    }
    return cudaGetLastError();
  });
}

}  // namespace cuda
}  // namespace semvq
