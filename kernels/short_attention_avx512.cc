#include "kernels/short_attention_avx512.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16,fma")
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace semvq {
namespace internal {
namespace {

constexpr int64_t kLanes = 16;
// Queries whose scores are in the cache at a time.
constexpr int64_t kMostQueries = 96;
constexpr int64_t kMostGroups = 8;  // kMostShortKeys / kLanes.
// 24 accumulators, 3 rows of b and 1 broadcast fit the 32 registers.
constexpr int kTileRows = 8, kTileGroups = 3;
constexpr __mmask16 kAll = 0xffff;

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Blocks of nearly equal size.
int64_t QueryBlock(int64_t queries) {
  const int64_t blocks = (queries + kMostQueries - 1) / kMostQueries;
  return (queries + blocks - 1) / blocks;
}

// A bfloat16 matrix read by pairs along the summed dimension: pair p of row r
// is at data + r * row + p * pair. In values, not in pairs.
struct PairView {
  const uint16_t* data;
  int64_t row, pair;
};

// A matrix of pairs, [pairs][lanes].
struct Panel {
  uint32_t* data;
  int64_t lanes;
};

template <int kRows, int kGroups>
void Tile(int64_t pairs, PairView a, const uint32_t* b, int64_t b_lanes,
          float* c, int64_t c_lanes, bool add) {
  __m512 sums[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int g = 0; g < kGroups; ++g) {
      sums[r][g] = add ? _mm512_loadu_ps(c + r * c_lanes + kLanes * g)
                       : _mm512_setzero_ps();
    }
  }
  for (int64_t p = 0; p < pairs; ++p) {
    __m512i row[kGroups];
#pragma GCC unroll 3
    for (int g = 0; g < kGroups; ++g)
      row[g] = _mm512_loadu_si512(b + p * b_lanes + kLanes * g);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, a.data + r * a.row + p * a.pair, sizeof(pair));
      const __m512i all = _mm512_set1_epi32(pair);
#pragma GCC unroll 3
      for (int g = 0; g < kGroups; ++g) {
        sums[r][g] =
            _mm512_dpbf16_ps(sums[r][g], reinterpret_cast<__m512bh>(all),
                             reinterpret_cast<__m512bh>(row[g]));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int g = 0; g < kGroups; ++g)
      _mm512_storeu_ps(c + r * c_lanes + kLanes * g, sums[r][g]);
  }
}

template <int kGroups>
void TileOf(int64_t rows, int64_t pairs, PairView a, const uint32_t* b,
            int64_t b_lanes, float* c, int64_t c_lanes, bool add) {
  static constexpr decltype(&Tile<1, kGroups>) kTiles[kTileRows] = {
      &Tile<1, kGroups>, &Tile<2, kGroups>, &Tile<3, kGroups>,
      &Tile<4, kGroups>, &Tile<5, kGroups>, &Tile<6, kGroups>,
      &Tile<7, kGroups>, &Tile<8, kGroups>};
  kTiles[rows - 1](pairs, a, b, b_lanes, c, c_lanes, add);
}

// c [rows][c_lanes] = a b, or += with `add`.
void Product(int64_t rows, int64_t pairs, PairView a, Panel b, float* c,
             int64_t c_lanes, bool add) {
  int64_t left = b.lanes / kLanes;
  for (int64_t lane = 0; left > 0;) {
    // 4 and 5 groups in two parts, not in 3 and a slow rest of 1.
    const int64_t groups =
        left == kTileGroups + 1 ? 2 : std::min<int64_t>(left, kTileGroups);
    for (int64_t r = 0; r < rows; r += kTileRows) {
      const int64_t here = std::min<int64_t>(rows - r, kTileRows);
      const PairView part = {a.data + r * a.row, a.row, a.pair};
      float* to = c + r * c_lanes + lane;
      const uint32_t* from = b.data + lane;
      if (groups == 3) {
        TileOf<3>(here, pairs, part, from, b.lanes, to, c_lanes, add);
      } else if (groups == 2) {
        TileOf<2>(here, pairs, part, from, b.lanes, to, c_lanes, add);
      } else {
        TileOf<1>(here, pairs, part, from, b.lanes, to, c_lanes, add);
      }
    }
    lane += groups * kLanes;
    left -= groups;
  }
}

inline __m512i Widen(__m256i values) {
  return _mm512_maskz_cvtepu16_epi32(kAll, values);
}
inline __m512 ToFloat(const uint16_t* values) {
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(
      kAll, Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values))),
      16));
}
inline __m256i ToBfloat16(__m512 values) {
  return reinterpret_cast<__m256i>(_mm512_maskz_cvtneps_pbh(kAll, values));
}
inline void StoreBfloat16(uint16_t* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), ToBfloat16(values));
}
// Values of an even row, then of the odd one below it.
inline void StorePairs(uint32_t* to, __m256i even, __m256i odd) {
  _mm512_storeu_si512(
      to, _mm512_or_si512(Widen(even),
                          _mm512_maskz_slli_epi32(kAll, Widen(odd), 16)));
}

// Through memory: GCC 12 warns inside its own 512-bit reductions.
template <typename Op>
inline float Reduce(__m512 values, const Op& op) {
  float v[kLanes];
  _mm512_storeu_ps(v, values);
  const __m256 eight = op(_mm256_loadu_ps(v), _mm256_loadu_ps(v + 8));
  __m128 four =
      op(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = op(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(op(four, _mm_movehdup_ps(four)));
}
inline float Greatest(__m512 values) {
  return Reduce(values, [](auto a, auto b) { return a > b ? a : b; });
}
inline float Sum(__m512 values) {
  return Reduce(values, [](auto a, auto b) { return a + b; });
}

// e^x of the `lanes`, else 0; x at most about 0. To 2 units in the last place;
// below e^-87 it is 0 or nearly.
inline __m512 Exp(__m512 x, __mmask16 lanes) {
  // Adding 1.5 * 2^23 rounds to a whole number.
  const __m512 shift = _mm512_set1_ps(12582912.0f);
  x = _mm512_maskz_max_ps(lanes, x, _mm512_set1_ps(-104.0f));
  const __m512 n = _mm512_sub_ps(
      _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), shift), shift);
  // ln 2 in two parts.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  // Taylor's series: |r| is at most ln(2) / 2.
  __m512 sum = _mm512_set1_ps(1.0f / 720);
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(term));
  return _mm512_maskz_scalef_ps(lanes, sum, n);
}

// Rows 2p and 2p + 1 of x as pairs; what is missing is 0.
void PackRowPairs(HeadView x, int64_t rows, int64_t dim, uint32_t* to) {
  for (int64_t r = 0; r < rows; r += 2, to += dim) {
    const uint16_t* even = x.data + r * x.stride;
    for (int64_t c = 0; c < dim; c += kLanes) {
      const __m256i low =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(even + c));
      const __m256i high =
          r + 1 < rows ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(
                             even + x.stride + c))
                       : _mm256_setzero_si256();
      StorePairs(to + c, low, high);
    }
  }
}

// Columns 2p and 2p + 1 of x as pairs, [dim / 2][lanes], x's rows in the lanes;
// the rest is 0.
void PackColumnPairs(HeadView x, int64_t rows, int64_t dim, Panel to) {
  for (int64_t r = 0; r < to.lanes; r += 4) {
    for (int64_t p = 0; p < dim / 2; p += 4) {
      // A transpose of 4 x 4 pairs.
      __m128i in[4];
      for (int64_t i = 0; i < 4; ++i) {
        in[i] = r + i < rows ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(
                                   x.data + (r + i) * x.stride + 2 * p))
                             : _mm_setzero_si128();
      }
      const __m128i low01 = _mm_unpacklo_epi32(in[0], in[1]);
      const __m128i low23 = _mm_unpacklo_epi32(in[2], in[3]);
      const __m128i high01 = _mm_unpackhi_epi32(in[0], in[1]);
      const __m128i high23 = _mm_unpackhi_epi32(in[2], in[3]);
      uint32_t* at = to.data + p * to.lanes + r;
      const auto store = [&](int64_t row, __m128i pairs) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(at + row * to.lanes),
                         pairs);
      };
      store(0, _mm_unpacklo_epi64(low01, low23));
      store(1, _mm_unpackhi_epi64(low01, low23));
      store(2, _mm_unpacklo_epi64(high01, high23));
      store(3, _mm_unpackhi_epi64(high01, high23));
    }
  }
}

// Cuts a workspace into 64-byte aligned pieces; without one, measures it.
class Cutter {
 public:
  explicit Cutter(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += RoundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

struct Workspace {
  Workspace(const HeadShape& shape, void* base) {
    Cutter cut(base);
    const int64_t block = QueryBlock(shape.queries);
    const int64_t half = (block + 1) / 2;
    lanes = RoundUp(shape.keys, kLanes);
    keys_by_column = {cut.Take<uint32_t>(shape.dim / 2 * lanes), lanes};
    values_by_column = {cut.Take<uint32_t>(shape.dim / 2 * lanes), lanes};
    keys_by_row = {cut.Take<uint32_t>(lanes / 2 * shape.dim), shape.dim};
    values_by_row = {cut.Take<uint32_t>(lanes / 2 * shape.dim), shape.dim};
    queries_by_row = {cut.Take<uint32_t>(half * shape.dim), shape.dim};
    grads_by_row = {cut.Take<uint32_t>(half * shape.dim), shape.dim};
    map = cut.Take<float>(block * lanes);
    map_gradient = cut.Take<float>(block * lanes);
    rounded = cut.Take<uint16_t>(block * lanes);
    map_pairs = cut.Take<uint32_t>(half * lanes);
    gradient_pairs = cut.Take<uint32_t>(half * lanes);
    rows = cut.Take<float>(block * shape.dim);
    grad_k = cut.Take<float>(shape.keys * shape.dim);
    grad_v = cut.Take<float>(shape.keys * shape.dim);
    size = cut.used();
  }

  int64_t lanes = 0;
  Panel keys_by_column, values_by_column, keys_by_row, values_by_row,
      queries_by_row, grads_by_row;
  float *map = nullptr, *map_gradient = nullptr;  // [block][lanes]
  uint16_t* rounded = nullptr;                    // [block][lanes]
  uint32_t *map_pairs = nullptr, *gradient_pairs = nullptr;
  float* rows = nullptr;                       // [block][dim]
  float *grad_k = nullptr, *grad_v = nullptr;  // [keys][dim]
  int64_t size = 0;
};

// Which keys may be seen, as bits.
struct Seen {
  Seen(const HeadShape& shape, const bool* seen) {
    for (int64_t k = 0; k < shape.keys; ++k) {
      if (seen == nullptr || seen[k])
        bits[k / kLanes] |= static_cast<__mmask16>(1u << (k % kLanes));
    }
  }
  __mmask16 bits[kMostGroups] = {};
};

void StoreRows(const float* from, int64_t rows, int64_t dim, HeadView to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < dim; c += kLanes) {
      StoreBfloat16(to.data + r * to.stride + c,
                    _mm512_loadu_ps(from + r * dim + c));
    }
  }
}

}  // namespace

bool HasHeadKernels() {
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bf16");
}

int64_t HeadWorkspace(const HeadShape& shape) {
  return Workspace(shape, nullptr).size;
}

void HeadForward(const HeadShape& shape, const HeadInput& in, HeadView out,
                 float* log_sums, void* workspace) {
  const Workspace work(shape, workspace);
  const Seen seen(shape, in.seen);
  const int64_t lanes = work.lanes, dim = shape.dim;
  const int64_t key_pairs = (shape.keys + 1) / 2;
  PackColumnPairs(in.k, shape.keys, dim, work.keys_by_column);
  PackRowPairs(in.v, shape.keys, dim, work.values_by_row.data);
  const __m512 scale = _mm512_set1_ps(shape.scale);
  const __m512 least = _mm512_set1_ps(-INFINITY);
  const int64_t block = QueryBlock(shape.queries);
  for (int64_t first = 0; first < shape.queries; first += block) {
    const int64_t rows = std::min(block, shape.queries - first);
    Product(rows, dim / 2, {in.q.data + first * in.q.stride, in.q.stride, 2},
            work.keys_by_column, work.map, lanes, false);
    for (int64_t r = 0; r < rows; ++r) {
      float* map = work.map + r * lanes;
      __m512 most = least;
      for (int64_t g = 0; g < lanes / kLanes; ++g) {
        const __m512 scores =
            _mm512_mul_ps(_mm512_loadu_ps(map + kLanes * g), scale);
        _mm512_storeu_ps(map + kLanes * g, scores);
        most = _mm512_mask_max_ps(most, seen.bits[g], most, scores);
      }
      const float greatest = Greatest(most);
      const __m512 top = _mm512_set1_ps(greatest);
      __m512 sums = _mm512_setzero_ps();
      for (int64_t g = 0; g < lanes / kLanes; ++g) {
        const __m512 weight =
            Exp(_mm512_sub_ps(_mm512_loadu_ps(map + kLanes * g), top),
                seen.bits[g]);
        sums = _mm512_add_ps(sums, weight);
        StoreBfloat16(work.rounded + r * lanes + kLanes * g, weight);
      }
      // Scaled after the product with v; NaN where there is nothing to see.
      map[0] = 1.0f / Sum(sums);
      log_sums[first + r] = greatest - std::log(map[0]);
    }
    Product(rows, key_pairs, {work.rounded, lanes, 2}, work.values_by_row,
            work.rows, dim, false);
    for (int64_t r = 0; r < rows; ++r) {
      const __m512 factor = _mm512_set1_ps(work.map[r * lanes]);
      for (int64_t c = 0; c < dim; c += kLanes) {
        StoreBfloat16(
            out.data + (first + r) * out.stride + c,
            _mm512_mul_ps(_mm512_loadu_ps(work.rows + r * dim + c), factor));
      }
    }
  }
}

void HeadBackward(const HeadShape& shape, const HeadInput& in,
                  const float* log_sums, const HeadGradient& gradient,
                  void* workspace) {
  const Workspace work(shape, workspace);
  const Seen seen(shape, in.seen);
  const int64_t lanes = work.lanes, dim = shape.dim;
  const int64_t key_pairs = (shape.keys + 1) / 2;
  PackColumnPairs(in.k, shape.keys, dim, work.keys_by_column);
  PackColumnPairs(in.v, shape.keys, dim, work.values_by_column);
  PackRowPairs(in.k, shape.keys, dim, work.keys_by_row.data);
  const __m512 scale = _mm512_set1_ps(shape.scale);
  const int64_t block = QueryBlock(shape.queries);
  for (int64_t first = 0; first < shape.queries; first += block) {
    const int64_t rows = std::min(block, shape.queries - first);
    const auto from = [first](HeadView view) {
      return HeadView{view.data + first * view.stride, view.stride};
    };
    const HeadView q = from(in.q), out = from(gradient.out),
                   grad = from(gradient.grad_out);
    Product(rows, dim / 2, {q.data, q.stride, 2}, work.keys_by_column, work.map,
            lanes, false);
    Product(rows, dim / 2, {grad.data, grad.stride, 2}, work.values_by_column,
            work.map_gradient, lanes, false);
    // Two rows at a time, for their pairs.
    for (int64_t r = 0; r < rows; r += 2) {
      const int64_t both = std::min<int64_t>(2, rows - r);
      __m512 mean[2], log_sum[2];
      for (int64_t i = 0; i < both; ++i) {
        __m512 sums = _mm512_setzero_ps();
        for (int64_t c = 0; c < dim; c += kLanes) {
          sums = _mm512_fmadd_ps(ToFloat(out.data + (r + i) * out.stride + c),
                                 ToFloat(grad.data + (r + i) * grad.stride + c),
                                 sums);
        }
        mean[i] = _mm512_set1_ps(Sum(sums));
        log_sum[i] = _mm512_set1_ps(log_sums[first + r + i]);
      }
      for (int64_t lane = 0; lane < lanes; lane += kLanes) {
        __m256i map[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        __m256i slope[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int64_t i = 0; i < both; ++i) {
          const int64_t at = (r + i) * lanes + lane;
          const __m512 weight =
              Exp(_mm512_fmsub_ps(_mm512_loadu_ps(work.map + at), scale,
                                  log_sum[i]),
                  seen.bits[lane / kLanes]);
          map[i] = ToBfloat16(weight);
          slope[i] = ToBfloat16(_mm512_mul_ps(
              _mm512_mul_ps(weight, scale),
              _mm512_sub_ps(_mm512_loadu_ps(work.map_gradient + at), mean[i])));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(work.rounded + at),
                              slope[i]);
        }
        const int64_t pair = r / 2 * lanes + lane;
        StorePairs(work.map_pairs + pair, map[0], map[1]);
        StorePairs(work.gradient_pairs + pair, slope[0], slope[1]);
      }
    }
    Product(rows, key_pairs, {work.rounded, lanes, 2}, work.keys_by_row,
            work.rows, dim, false);
    StoreRows(work.rows, rows, dim, from(gradient.grad_q));
    // By keys: a row of pairs is read down its column.
    PackRowPairs(grad, rows, dim, work.grads_by_row.data);
    PackRowPairs(q, rows, dim, work.queries_by_row.data);
    const int64_t pairs = (rows + 1) / 2;
    const auto by_keys = [lanes](const uint32_t* pairs) {
      return PairView{reinterpret_cast<const uint16_t*>(pairs), 2, 2 * lanes};
    };
    Product(shape.keys, pairs, by_keys(work.map_pairs), work.grads_by_row,
            work.grad_v, dim, first > 0);
    Product(shape.keys, pairs, by_keys(work.gradient_pairs),
            work.queries_by_row, work.grad_k, dim, first > 0);
  }
  StoreRows(work.grad_k, shape.keys, dim, gradient.grad_k);
  StoreRows(work.grad_v, shape.keys, dim, gradient.grad_v);
}

}  // namespace internal
}  // namespace semvq

#else

namespace semvq {
namespace internal {

bool HasHeadKernels() { return false; }
int64_t HeadWorkspace(const HeadShape&) { return 0; }
void HeadForward(const HeadShape&, const HeadInput&, HeadView, float*, void*) {}
void HeadBackward(const HeadShape&, const HeadInput&, const float*,
                  const HeadGradient&, void*) {}

}  // namespace internal
}  // namespace semvq

#endif
