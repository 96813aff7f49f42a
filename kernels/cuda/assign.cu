// Nearest codes: pack, scan on tensor cores, decide in float64.
#include <cuda_pipeline.h>
#include <math_constants.h>

#include <type_traits>

#include "kernels/cuda/codes.h"
#include "kernels/cuda/load.cuh"

namespace semvq {
namespace cuda {
namespace {

// Features and codes of a block's tile, and the dimensions staged at once.
constexpr int kTileRows = 128;
constexpr int kTileCodes = 128;
constexpr int kTileDim = 32;
// A staged row's length: 36 words keep the fragments' loads free of bank
// conflicts and rows aligned to 16 bytes.
constexpr int kPitch = kTileDim + 4;
constexpr int kThreads = 256;    // 8 warps: 4 of 32 rows by 2 of 64 codes.
constexpr int kCandidates = 16;  // Kept per feature and split of the codebook.
constexpr int kMaxSplits = 16;

// Special margins: the feature is scored in float64 against every code; its
// code is 0 because it is not finite; there is no such feature.
constexpr float kSlow = -1;
constexpr float kNotFinite = -2;
constexpr float kAbsent = -3;

// Beyond this norm float32 scores may overflow.
constexpr double kMaxFastNorm = 1e18;

struct Sizes {
  int64_t n, codes, dim;
  int64_t padded_codes, padded_dim;
  int64_t chunk;  // Features at a time, a multiple of kTileRows.
  int splits;     // Of the codebook.
};

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

Sizes MakeSizes(const AssignArguments& a) {
  Sizes s;
  s.n = a.n;
  s.codes = a.codes;
  s.dim = a.dim;
  s.padded_codes = RoundUp(a.codes, kTileCodes);
  s.padded_dim = RoundUp(a.dim, kTileDim);
  // Half the codebook's size or what fills the device with few codes.
  s.chunk = RoundUp(a.codes / 2, kTileRows);
  s.chunk = s.chunk < 1024 ? 1024 : s.chunk > 16384 ? 16384 : s.chunk;
  const int64_t padded = RoundUp(a.n, kTileRows);
  if (padded < s.chunk) s.chunk = padded;
  const int64_t blocks = s.chunk / kTileRows;
  int64_t splits = (2 * a.multiprocessors + blocks - 1) / blocks;
  const int64_t tiles = s.padded_codes / kTileCodes;
  if (splits > tiles) splits = tiles;
  s.splits = static_cast<int>(splits < 1            ? 1
                              : splits > kMaxSplits ? kMaxSplits
                                                    : splits);
  return s;
}

// Over the codes as packed; as bits, because those of non-negative floats
// compare as integers.
struct Greatest {
  int norm;
  int rounding;  // Of |code - packed code|.
};

struct Workspace {
  double* norms;   // [codes]
  float* codes;    // [padded_codes][padded_dim], in TF32
  float* offsets;  // [padded_codes]: minus half the squared norm
  Greatest* greatest;
  float* rows;     // [chunk][padded_dim], in TF32
  float* margins;  // [chunk]
  float* best;     // [splits][chunk]
  int* counts;     // [splits][chunk]; more than kCandidates: overflow
  float* scores;   // [splits][chunk][kCandidates]
  int* found;      // likewise: codes
};

// Lays the arrays out behind `base`; returns the size.
size_t Layout(const Sizes& s, void* base, Workspace* w) {
  size_t used = 0;
  const auto take = [&](auto** pointer, int64_t count) {
    *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(
        static_cast<char*>(base) + used);
    used += RoundUp(count * sizeof(**pointer), 256);
  };
  const int64_t lists = s.splits * s.chunk;
  take(&w->norms, s.codes);
  take(&w->codes, s.padded_codes * s.padded_dim);
  take(&w->offsets, s.padded_codes);
  take(&w->greatest, 1);
  take(&w->rows, s.chunk * s.padded_dim);
  take(&w->margins, s.chunk);
  take(&w->best, lists);
  take(&w->counts, lists);
  take(&w->scores, lists * kCandidates);
  take(&w->found, lists * kCandidates);
  return used;
}

__device__ float ToTf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

// Floats to integers of the same order, for atomicMax; its own inverse.
__device__ int Ordered(float value) {
  const int bits = __float_as_int(value);
  return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
__device__ float FromOrdered(int key) {
  return __int_as_float(key >= 0 ? key : key ^ 0x7fffffff);
}

// The sum of squares in the order of dimensions, rounded after every operation
// as on CPU; the whole warp has it.
template <class T>
__device__ double SquaredNorm(const T* v, int64_t dim, int lane) {
  double sum = 0;
  for (int64_t begin = 0; begin < dim; begin += 32) {
    const double mine = begin + lane < dim ? Wide(v[begin + lane]) : 0;
    const int size = dim - begin < 32 ? static_cast<int>(dim - begin) : 32;
    for (int i = 0; i < size; ++i) {
      const double x = __shfl_sync(0xffffffff, mine, i);
      sum = __dadd_rn(sum, __dmul_rn(x, x));
    }
  }
  return sum;
}

__device__ double WarpSum(double value) {
  for (int step = 16; step > 0; step /= 2)
    value += __shfl_xor_sync(0xffffffff, value, step);
  return value;
}

__device__ float RoundedUp(double value) { return __double2float_ru(value); }

// A warp per code.
template <class T>
__global__ void PackCodes(const T* codebook, Sizes s, bool cosine,
                          Workspace w) {
  const int lane = threadIdx.x % 32;
  const int64_t k =
      (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (k >= s.padded_codes) return;
  float* packed = w.codes + k * s.padded_dim;
  double norm = CUDART_NAN;
  if (k < s.codes) {
    norm = __dsqrt_rn(SquaredNorm(codebook + k * s.dim, s.dim, lane));
    if (lane == 0) w.norms[k] = norm;
  }
  const bool usable = isfinite(norm);  // A code that is not must not win.
  const double divisor = cosine && norm > 0 ? norm : 1.0;
  double lost = 0;
  for (int64_t d = lane; d < s.padded_dim; d += 32) {
    double exact = 0;
    if (usable && d < s.dim) exact = Wide(codebook[k * s.dim + d]) / divisor;
    const float value = ToTf32(static_cast<float>(exact));
    packed[d] = value;
    lost += (exact - value) * (exact - value);
  }
  lost = WarpSum(lost);
  if (lane != 0) return;
  w.offsets[k] = !usable  ? -CUDART_INF_F
                 : cosine ? 0.0f
                          : static_cast<float>(-0.5 * norm * norm);
  if (!usable) return;
  atomicMax(&w.greatest->norm,
            __float_as_int(RoundedUp(cosine && norm > 0 ? 1.0 : norm)));
  atomicMax(&w.greatest->rounding,
            __float_as_int(RoundedUp(1.0001 * sqrt(lost))));
}

// Twice the most by which a score computed below can differ from the exact one,
// plus the same for float64's cost. z, e: norms; dz, de: of what rounding to
// TF32 takes away. Tensor cores may cut off where they add: 2^-22 for each of
// at most 2 D steps of magnitude z e is more than that. Underflow loses less
// than 2^-120 a step.
__device__ double Margin(double z, double dz, double e, double de, int64_t dim,
                         bool cosine) {
  const double steps = 2.0 * static_cast<double>(dim) + 32;
  const double half = cosine ? 0.0 : 0.5 * e * e;
  const double inputs = dz * e + (z + dz) * de;
  const double single = steps * 0x1.0p-22 * ((z + dz) * (e + de) + half);
  const double wide = steps * 0x1.0p-53 * (cosine ? z * e : (z + e) * (z + e));
  const double underflow = steps * 0x1.0p-120 * (1 + z + e);
  return 2.02 * (inputs + single + wide + underflow);
}

// A warp per feature of the chunk that begins at `first`.
template <class T>
__global__ void PackRows(const T* features, Sizes s, bool cosine, int64_t first,
                         Workspace w) {
  const int lane = threadIdx.x % 32;
  const int64_t i =
      (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (i >= s.chunk) return;
  const bool present = first + i < s.n;
  const T* z = features + (first + i) * s.dim;
  double squares = 0, lost = 0;
  bool finite = true;
  if (present) {
    for (int64_t d = lane; d < s.dim; d += 32) {
      const double exact = Wide(z[d]);
      const double value = ToTf32(static_cast<float>(exact));
      finite = finite && isfinite(exact);
      squares += exact * exact;
      lost += (exact - value) * (exact - value);
    }
  }
  finite = __all_sync(0xffffffff, finite);
  // What the sums' own rounding may hide is far below the 1 % to spare.
  const double norm = sqrt(WarpSum(squares));
  lost = sqrt(WarpSum(lost));
  const double greatest = __int_as_float(w.greatest->norm);
  const bool fast =
      present && finite && norm < kMaxFastNorm && greatest < kMaxFastNorm;
  for (int64_t d = lane; d < s.padded_dim; d += 32) {
    w.rows[i * s.padded_dim + d] =
        fast && d < s.dim ? ToTf32(static_cast<float>(Wide(z[d]))) : 0.0f;
  }
  if (lane != 0) return;
  w.margins[i] = !present  ? kAbsent
                 : !finite ? kNotFinite
                 : !fast
                     ? kSlow
                     : RoundedUp(Margin(norm, lost, greatest,
                                        __int_as_float(w.greatest->rounding),
                                        s.dim, cosine));
}

struct Shared {
  float rows[2][kTileRows * kPitch];
  float codes[2][kTileCodes * kPitch];
  int best[kTileRows];  // Ordered
  float margins[kTileRows];
  int counts[kTileRows];
  float scores[kTileRows][kCandidates];
  int found[kTileRows][kCandidates];
};

// Starts copying a tile of 128 rows by kTileDim.
__device__ void Stage(const float* from, int64_t stride, float* to) {
  constexpr int kVectors = kTileDim / 4;
  for (int i = threadIdx.x; i < kTileRows * kVectors; i += kThreads) {
    const int row = i / kVectors, vector = i % kVectors;
    __pipeline_memcpy_async(to + row * kPitch + 4 * vector,
                            from + row * stride + 4 * vector, 16);
  }
}

__device__ void Multiply(const unsigned (&a)[4], const unsigned (&b)[2],
                         float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A block scores kTileRows features (blockIdx.x) against a range of the
// codebook (blockIdx.y), tile by tile; scores stay in registers. Which codes
// are offered depends on nothing but the data: the threshold of a tile counts
// all of it.
__global__ void __launch_bounds__(kThreads, 2) Scan(Sizes s, Workspace w) {
  extern __shared__ __align__(16) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, member = lane % 4;  // As mma's layout has them.
  const int warp_row = warp / 2 * 32, warp_code = warp % 2 * 64;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kTileRows;
  const int tiles = static_cast<int>(s.padded_codes / kTileCodes);
  const int begin =
      static_cast<int>(static_cast<int64_t>(tiles) * blockIdx.y / gridDim.y);
  const int end = static_cast<int>(static_cast<int64_t>(tiles) *
                                   (blockIdx.y + 1) / gridDim.y);
  const int pieces = static_cast<int>(s.padded_dim / kTileDim);

  for (int i = threadIdx.x; i < kTileRows; i += kThreads) {
    shared.best[i] = Ordered(-CUDART_INF_F);
    shared.margins[i] = w.margins[first_row + i];
    shared.counts[i] = 0;
  }
  const float* rows = w.rows + first_row * s.padded_dim;
  const auto stage = [&](int tile, int piece, int buffer) {
    Stage(rows + piece * kTileDim, s.padded_dim, shared.rows[buffer]);
    Stage(w.codes + static_cast<int64_t>(tile) * kTileCodes * s.padded_dim +
              piece * kTileDim,
          s.padded_dim, shared.codes[buffer]);
  };

  float sums[2][8][4];
  int buffer = 0;
  stage(begin, 0, 0);
  __pipeline_commit();
  for (int tile = begin; tile < end; ++tile) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][n][i] = 0;
      }
    }
    for (int piece = 0; piece < pieces; ++piece) {
      const bool last = piece + 1 == pieces;
      if (!last || tile + 1 < end)
        stage(last ? tile + 1 : tile, last ? 0 : piece + 1, buffer ^ 1);
      __pipeline_commit();
      __pipeline_wait_prior(1);
      __syncthreads();
      const unsigned* row_words =
          reinterpret_cast<const unsigned*>(shared.rows[buffer]);
      const unsigned* code_words =
          reinterpret_cast<const unsigned*>(shared.codes[buffer]);
#pragma unroll
      for (int d = 0; d < kTileDim; d += 8) {
        unsigned a[2][4], b[8][2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const unsigned* from =
              row_words + (warp_row + 16 * m + group) * kPitch + d + member;
          a[m][0] = from[0];
          a[m][1] = from[8 * kPitch];
          a[m][2] = from[4];
          a[m][3] = from[8 * kPitch + 4];
        }
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          const unsigned* from =
              code_words + (warp_code + 8 * n + group) * kPitch + d + member;
          b[n][0] = from[0];
          b[n][1] = from[4];
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int n = 0; n < 8; ++n) Multiply(a[m], b[n], sums[m][n]);
        }
      }
      buffer ^= 1;
      __syncthreads();  // The next round overwrites what was read here.
    }

    // Scores, and the best of each row.
    const int64_t first_code =
        static_cast<int64_t>(tile) * kTileCodes + warp_code + 2 * member;
    float best[2][2] = {{-CUDART_INF_F, -CUDART_INF_F},
                        {-CUDART_INF_F, -CUDART_INF_F}};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 offset =
          *reinterpret_cast<const float2*>(w.offsets + first_code + 8 * n);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[m][n][i] += i % 2 == 0 ? offset.x : offset.y;
          best[m][i / 2] = fmaxf(best[m][i / 2], sums[m][n][i]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float value = best[m][h];
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, 1));
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, 2));
        if (member == 0) {
          atomicMax(&shared.best[warp_row + 16 * m + 8 * h + group],
                    Ordered(value));
        }
      }
    }
    __syncthreads();

    // Offers of what may be nearest.
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = warp_row + 16 * m + 8 * h + group;
        const float margin = shared.margins[row];
        const float threshold =
            __fsub_rd(FromOrdered(shared.best[row]), margin);
        if (margin < 0 || best[m][h] < threshold) continue;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float score = sums[m][n][2 * h + i];
            if (score < threshold || score == -CUDART_INF_F) continue;
            const int place = atomicAdd(&shared.counts[row], 1);
            if (place >= kCandidates) continue;
            shared.scores[row][place] = score;
            shared.found[row][place] = static_cast<int>(first_code + 8 * n + i);
          }
        }
      }
    }
    __syncthreads();

    // Room for the next tile: what the best so far has ruled out goes.
    if (threadIdx.x < kTileRows) {
      const int row = threadIdx.x;
      const int count = shared.counts[row];
      if (count > kCandidates / 2 && count <= kCandidates) {
        const float threshold =
            __fsub_rd(FromOrdered(shared.best[row]), shared.margins[row]);
        int kept = 0;
        for (int i = 0; i < count; ++i) {
          const float score = shared.scores[row][i];
          if (score < threshold) continue;
          shared.scores[row][kept] = score;
          shared.found[row][kept] = shared.found[row][i];
          ++kept;
        }
        shared.counts[row] = kept;
      }
    }
    // The next write to the lists comes after more barriers.
  }

  __pipeline_wait_prior(0);
  __syncthreads();
  const int64_t list = static_cast<int64_t>(blockIdx.y) * s.chunk + first_row;
  for (int i = threadIdx.x; i < kTileRows; i += kThreads) {
    w.best[list + i] = FromOrdered(shared.best[i]);
    w.counts[list + i] = shared.counts[i];
  }
  for (int i = threadIdx.x; i < kTileRows * kCandidates; i += kThreads) {
    const int row = i / kCandidates, place = i % kCandidates;
    if (place >= shared.counts[row]) continue;
    w.scores[(list + row) * kCandidates + place] = shared.scores[row][place];
    w.found[(list + row) * kCandidates + place] = shared.found[row][place];
  }
}

// The definition in kernels/assign.h, rounded after every operation.
template <class Z, class E>
__device__ double Cost(const Z* z, const E* e, int64_t dim, bool cosine,
                       double norm) {
  double sum = 0;
  if (!cosine) {
    for (int64_t d = 0; d < dim; ++d) {
      const double difference = __dsub_rn(Wide(z[d]), Wide(e[d]));
      sum = __dadd_rn(sum, __dmul_rn(difference, difference));
    }
    return sum;
  }
  for (int64_t d = 0; d < dim; ++d)
    sum = __dadd_rn(sum, __dmul_rn(Wide(z[d]), Wide(e[d])));
  return norm == 0 ? 0 : __ddiv_rn(-sum, norm);
}

// A warp per feature: the least cost among its candidates, or among all codes.
template <class Z, class E>
__global__ void Decide(const Z* features, const E* codebook, Sizes s,
                       bool cosine, int64_t first, Workspace w, int64_t* out) {
  const int lane = threadIdx.x % 32;
  const int64_t i =
      (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (i >= s.chunk || first + i >= s.n) return;
  const Z* z = features + (first + i) * s.dim;
  const float margin = w.margins[i];
  double least = CUDART_INF;
  int64_t nearest = 0;
  const auto consider = [&](int64_t k) {
    const double cost =
        Cost(z, codebook + k * s.dim, s.dim, cosine, w.norms[k]);
    // Lists are in no order.
    if (cost < least || (cost == least && cost < CUDART_INF && k < nearest)) {
      least = cost;
      nearest = k;
    }
  };
  float best = -CUDART_INF_F;
  bool all = margin == kSlow;
  for (int split = 0; split < s.splits; ++split) {
    best = fmaxf(best, w.best[split * s.chunk + i]);
    all = all || w.counts[split * s.chunk + i] > kCandidates;
  }
  if (margin == kNotFinite) {
    // Code 0.
  } else if (all) {
    for (int64_t k = lane; k < s.codes; k += 32) {
      if (isfinite(w.norms[k])) consider(k);
    }
  } else {
    const float threshold = __fsub_rd(best, margin);
    for (int slot = lane; slot < s.splits * kCandidates; slot += 32) {
      const int64_t list = slot / kCandidates * s.chunk + i;
      const int place = slot % kCandidates;
      if (place >= w.counts[list]) continue;
      if (w.scores[list * kCandidates + place] < threshold) continue;
      consider(w.found[list * kCandidates + place]);
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const double cost = __shfl_xor_sync(0xffffffff, least, step);
    const int64_t code = __shfl_xor_sync(0xffffffff, nearest, step);
    if (cost < least || (cost == least && code < nearest)) {
      least = cost;
      nearest = code;
    }
  }
  // Without any finite cost every lane still has code 0.
  if (lane == 0) out[first + i] = nearest;
}

unsigned WarpBlocks(int64_t warps) {
  return static_cast<unsigned>((warps * 32 + kThreads - 1) / kThreads);
}

template <class Z, class E>
cudaError_t Run(const Z* features, const E* codebook, const AssignArguments& a,
                cudaStream_t stream) {
  const Sizes s = MakeSizes(a);
  Workspace w;
  Layout(s, a.workspace, &w);
  cudaError_t status = cudaMemsetAsync(w.greatest, 0, sizeof(Greatest), stream);
  if (status != cudaSuccess) return status;
  // More than 48 KiB must be asked for.
  status = cudaFuncSetAttribute(
      Scan, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  if (status != cudaSuccess) return status;
  PackCodes<<<WarpBlocks(s.padded_codes), kThreads, 0, stream>>>(codebook, s,
                                                                 a.cosine, w);
  for (int64_t first = 0; first < s.n; first += s.chunk) {
    PackRows<<<WarpBlocks(s.chunk), kThreads, 0, stream>>>(features, s,
                                                           a.cosine, first, w);
    const dim3 grid(static_cast<unsigned>(s.chunk / kTileRows),
                    static_cast<unsigned>(s.splits));
    Scan<<<grid, kThreads, sizeof(Shared), stream>>>(s, w);
    Decide<<<WarpBlocks(s.chunk), kThreads, 0, stream>>>(
        features, codebook, s, a.cosine, first, w, a.out);
  }
  return cudaGetLastError();
}

}  // namespace

size_t AssignWorkspaceBytes(const AssignArguments& arguments) {
  Workspace w;
  return Layout(MakeSizes(arguments), nullptr, &w);
}

cudaError_t Assign(const AssignArguments& a, cudaStream_t stream) {
  if (a.n == 0) return cudaSuccess;
  return WithType(a.features_type, a.features, [&](auto* features) {
    if (a.codebook_type == Dtype::kFloat64)
      return Run(features, static_cast<const double*>(a.codebook), a, stream);
    return Run(features, static_cast<const float*>(a.codebook), a, stream);
  });
}

}  // namespace cuda
}  // namespace semvq
