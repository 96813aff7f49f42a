// A product of a grey level and a weight of 22 bits needs 32 bits, for which
// AVX2 is slow. So a weight is split into hi * 2^11 + lo, both of 16 bits, and
// _mm256_madd_epi16 sums the products of two taps with each; hi's sum is
// shifted and added at the end. The sums are the same integers as in
// pixel_kernels.cc.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "data/pixel_kernels.h"

#define SEMVQ_AVX2 __attribute__((target("avx2")))
// Else the sums of the rows would lie in memory, not in registers.
#ifdef __clang__
#define SEMVQ_UNROLL _Pragma("unroll")
#else
#define SEMVQ_UNROLL _Pragma("GCC unroll 3")
#endif

namespace semvq {
namespace {

constexpr int kLowBits = 11;
constexpr int32_t kHalf = 1 << (kResizeWeightBits - 1);
constexpr int64_t kTapsAtATime = 4;
constexpr int64_t kRowsAtATime = 3;  // So that all sums fit in registers.
// What a load of 16 bytes reads behind the last tap.
constexpr int64_t kPadding = 32;

// Two weights as the 16-bit pair that madd wants.
int32_t Pair(int32_t first, int32_t second) {
  return static_cast<int32_t>(static_cast<uint32_t>(first & 0xFFFF) |
                              static_cast<uint32_t>(second) << 16);
}
int32_t Low(int32_t weight) { return weight & ((1 << kLowBits) - 1); }
int32_t High(int32_t weight) { return weight >> kLowBits; }

// Four taps' weights of two neighbouring outputs, one in each half of a
// register, for their red, green and blue values: taps 0 and 1, taps 2 and 3.
struct alignas(32) FourTaps {
  int32_t low[2][8], high[2][8];
};

// The last output may have no neighbour; its half is then not used.
std::vector<FourTaps> PackTaps(const ResizeTaps& taps) {
  const int64_t groups = taps.stride / kTapsAtATime;
  const int64_t pairs = (taps.outputs() + 1) / 2;
  std::vector<FourTaps> packed(pairs * groups);
  for (int64_t x = 0; x < taps.outputs(); ++x) {
    for (int64_t g = 0; g < groups; ++g) {
      FourTaps& four = packed[x / 2 * groups + g];
      for (int part = 0; part < 2; ++part) {
        const int32_t* w = taps.of(x) + g * kTapsAtATime + 2 * part;
        for (int i = 0; i < 3; ++i) {  // The fourth is no colour.
          four.low[part][x % 2 * 4 + i] = Pair(Low(w[0]), Low(w[1]));
          four.high[part][x % 2 * 4 + i] = Pair(High(w[0]), High(w[1]));
        }
      }
    }
  }
  return packed;
}

SEMVQ_AVX2 __m256i Round(__m256i low, __m256i high) {
  return _mm256_add_epi32(
      _mm256_add_epi32(low, _mm256_slli_epi32(high, kLowBits)),
      _mm256_set1_epi32(kHalf));
}

// kRowsAtATime padded rows, to as many rows.
SEMVQ_AVX2 void ResizeSomeRows(const uint8_t* const* in, const ResizeTaps& taps,
                               const FourTaps* packed, uint8_t* const* out) {
  // Red, green and blue of taps 0 and 1, and of taps 2 and 3.
  const __m256i first_two = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i last_two = _mm256_broadcastsi128_si256(_mm_setr_epi8(
      6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  const int64_t groups = taps.stride / kTapsAtATime, outputs = taps.outputs();
  for (int64_t x = 0; x < outputs; x += 2, packed += groups) {
    const ResizeTaps::Range a = taps.ranges[x],
                            b = taps.ranges[std::min(x + 1, outputs - 1)];
    const int64_t used =
        (std::max(a.count, b.count) + kTapsAtATime - 1) / kTapsAtATime;
    __m256i low[kRowsAtATime], high[kRowsAtATime];
    SEMVQ_UNROLL for (int r = 0; r < kRowsAtATime; ++r) low[r] = high[r] =
        _mm256_setzero_si256();
    for (int64_t g = 0; g < used; ++g) {
      const auto* w = reinterpret_cast<const __m256i*>(packed + g);
      const __m256i low_first = _mm256_load_si256(w),
                    low_last = _mm256_load_si256(w + 1),
                    high_first = _mm256_load_si256(w + 2),
                    high_last = _mm256_load_si256(w + 3);
      SEMVQ_UNROLL for (int r = 0; r < kRowsAtATime; ++r) {
        const uint8_t* from = in[r] + 3 * kTapsAtATime * g;
        const __m256i pixels = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128(
                reinterpret_cast<const __m128i*>(from + 3 * a.first))),
            _mm_loadu_si128(
                reinterpret_cast<const __m128i*>(from + 3 * b.first)),
            1);
        const __m256i first = _mm256_shuffle_epi8(pixels, first_two),
                      last = _mm256_shuffle_epi8(pixels, last_two);
        low[r] = _mm256_add_epi32(
            low[r], _mm256_add_epi32(_mm256_madd_epi16(first, low_first),
                                     _mm256_madd_epi16(last, low_last)));
        high[r] = _mm256_add_epi32(
            high[r], _mm256_add_epi32(_mm256_madd_epi16(first, high_first),
                                      _mm256_madd_epi16(last, high_last)));
      }
    }
    SEMVQ_UNROLL for (int r = 0; r < kRowsAtATime; ++r) {
      const __m256i levels =
          _mm256_srai_epi32(Round(low[r], high[r]), kResizeWeightBits);
      const __m256i words = _mm256_packs_epi32(levels, levels);
      const __m256i bytes = _mm256_packus_epi16(words, words);
      const int32_t left = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)),
                    right =
                        _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
      // The fourth byte of a pixel is overwritten by the next one.
      uint8_t* to = out[r] + 3 * x;
      std::memcpy(to, &left, x + 1 < outputs ? 4 : 3);
      if (x + 1 < outputs) std::memcpy(to + 3, &right, x + 2 < outputs ? 4 : 3);
    }
  }
}

SEMVQ_AVX2 void ResizeRows(const uint8_t* in, int64_t stride, int64_t rows,
                           const ResizeTaps& taps, uint8_t* out) {
  const std::vector<FourTaps> packed = PackTaps(taps);
  const int64_t bytes = 3 * taps.inputs;
  // Copies, because loads reach behind a row's end. The last taps are up to a
  // group of zeros behind it.
  const int64_t padded = bytes + 3 * taps.stride + kPadding;
  std::vector<uint8_t> copies(kRowsAtATime * padded, 0);
  const int64_t out_bytes = 3 * taps.outputs();
  std::vector<uint8_t> unused(out_bytes);
  for (int64_t y = 0; y < rows; y += kRowsAtATime) {
    const uint8_t* from[kRowsAtATime];
    uint8_t* to[kRowsAtATime];
    for (int64_t r = 0; r < kRowsAtATime; ++r) {
      const bool there = y + r < rows;
      from[r] = copies.data() + r * padded;
      to[r] = there ? out + (y + r) * out_bytes : unused.data();
      if (there)
        std::memcpy(copies.data() + r * padded, in + (y + r) * stride, bytes);
    }
    ResizeSomeRows(from, taps, packed.data(), to);
  }
}

// 16 columns of one output row.
SEMVQ_AVX2 void ResizeSixteen(const uint8_t* in, int64_t stride,
                              const int32_t* low, const int32_t* high,
                              int64_t count, uint8_t* out) {
  __m256i low_a = _mm256_setzero_si256(), low_b = low_a, high_a = low_a,
          high_b = low_a;
  for (int64_t k = 0; k < count; k += 2, in += 2 * stride) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    // A last single tap has a weight of 0 beside it.
    const __m128i second =
        k + 1 < count
            ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + stride))
            : first;
    const __m256i a = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second)),
                  b = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second));
    const __m256i low_weights = _mm256_set1_epi32(low[k / 2]),
                  high_weights = _mm256_set1_epi32(high[k / 2]);
    low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(a, low_weights));
    low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(b, low_weights));
    high_a = _mm256_add_epi32(high_a, _mm256_madd_epi16(a, high_weights));
    high_b = _mm256_add_epi32(high_b, _mm256_madd_epi16(b, high_weights));
  }
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(
          _mm256_srai_epi32(Round(low_a, high_a), kResizeWeightBits),
          _mm256_srai_epi32(Round(low_b, high_b), kResizeWeightBits)),
      0xD8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm_packus_epi16(_mm256_castsi256_si128(words),
                                    _mm256_extracti128_si256(words, 1)));
}

SEMVQ_AVX2 void ResizeColumns(const uint8_t* in, int64_t stride, int64_t width,
                              const ResizeTaps& taps, uint8_t* out) {
  if (width < 16)
    return GenericPixelKernels().resize_columns(in, stride, width, taps, out);
  std::vector<int32_t> low(taps.stride / 2), high(taps.stride / 2);
  for (int64_t y = 0; y < taps.outputs(); ++y, out += width) {
    const int32_t* w = taps.of(y);
    for (int64_t k = 0; k + 1 < taps.stride; k += 2) {
      low[k / 2] = Pair(Low(w[k]), Low(w[k + 1]));
      high[k / 2] = Pair(High(w[k]), High(w[k + 1]));
    }
    const uint8_t* rows = in + taps.ranges[y].first * stride;
    for (int64_t i = 0; i < width; i += 16) {
      // The last sixteen may do some columns again.
      const int64_t at = std::min(i, width - 16);
      ResizeSixteen(rows + at, stride, low.data(), high.data(),
                    taps.ranges[y].count, out + at);
    }
  }
}

SEMVQ_AVX2 void NormalizeRow(const uint8_t* rgb, int64_t pixels, bool flip,
                             const float scale[3], const float shift[3],
                             float* red, int64_t plane) {
  const __m256i backwards = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  __m128i from_first[3], from_second[3];
  for (int c = 0; c < 3; ++c) {
    alignas(16) int8_t a[16], b[16];
    for (int i = 0; i < 16; ++i) {
      const int byte = 3 * i + c;
      a[i] = static_cast<int8_t>(i < 8 && byte < 16 ? byte : -1);
      b[i] = static_cast<int8_t>(i < 8 && byte >= 16 ? byte - 8 : -1);
    }
    from_first[c] = _mm_load_si128(reinterpret_cast<const __m128i*>(a));
    from_second[c] = _mm_load_si128(reinterpret_cast<const __m128i*>(b));
  }
  int64_t x = 0;
  // Eight pixels are 24 bytes: 16, and 16 of which the last 8 are new.
  for (; x + 8 <= pixels; x += 8) {
    const __m128i first =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb + 3 * x));
    const __m128i second =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb + 3 * x + 8));
    for (int c = 0; c < 3; ++c) {
      const __m128i eight =
          _mm_or_si128(_mm_shuffle_epi8(first, from_first[c]),
                       _mm_shuffle_epi8(second, from_second[c]));
      __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
      values = _mm256_add_ps(_mm256_mul_ps(values, _mm256_set1_ps(scale[c])),
                             _mm256_set1_ps(shift[c]));
      if (flip) values = _mm256_permutevar8x32_ps(values, backwards);
      _mm256_storeu_ps(red + c * plane + (flip ? pixels - 8 - x : x), values);
    }
  }
  for (; x < pixels; ++x) {
    for (int c = 0; c < 3; ++c) {
      const float product = static_cast<float>(rgb[3 * x + c]) * scale[c];
      red[c * plane + (flip ? pixels - 1 - x : x)] = product + shift[c];
    }
  }
}

}  // namespace

const PixelKernels* Avx2PixelKernels() {
  static constexpr PixelKernels kernels = {ResizeRows, ResizeColumns,
                                           NormalizeRow};
  static const bool supported = __builtin_cpu_supports("avx2") != 0;
  return supported ? &kernels : nullptr;
}

}  // namespace semvq
