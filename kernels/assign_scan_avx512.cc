#include "kernels/assign_scan.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx512f,fma")
#include <immintrin.h>

namespace semvq {
namespace internal {
namespace {

constexpr int kRows = 12;

// The codes of a panel whose scores are above the threshold, as bits.
inline uint32_t Above(__m512 low, __m512 high, float threshold) {
  const __m512 bound = _mm512_set1_ps(threshold);
  const uint32_t bits = _mm512_cmp_ps_mask(low, bound, _CMP_GT_OQ);
  const uint32_t more = _mm512_cmp_ps_mask(high, bound, _CMP_GT_OQ);
  return bits | (more << 16);
}

// In 256 bits: GCC 12 warns inside its own 512-bit reductions.
inline float Greatest(const float* values) {
  const __m256 eight = _mm256_max_ps(
      _mm256_max_ps(_mm256_loadu_ps(values), _mm256_loadu_ps(values + 8)),
      _mm256_max_ps(_mm256_loadu_ps(values + 16),
                    _mm256_loadu_ps(values + 24)));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight),
                           _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  four = _mm_max_ss(four, _mm_movehdup_ps(four));
  return _mm_cvtss_f32(four);
}

void Scan(const float* rows, int64_t dim, const float* panel,
          const float* offsets, int64_t first_code, float* thresholds,
          RowCandidates* candidates) {
  // 24 accumulators, 2 panel registers and 1 broadcast fit the 32 registers.
  __m512 scores[kRows][2];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    scores[r][0] = _mm512_loadu_ps(offsets);
    scores[r][1] = _mm512_loadu_ps(offsets + 16);
  }
  for (int64_t d = 0; d < dim; ++d) {
    const __m512 low = _mm512_loadu_ps(panel);
    const __m512 high = _mm512_loadu_ps(panel + 16);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const __m512 z = _mm512_set1_ps(rows[r]);
      scores[r][0] = _mm512_fmadd_ps(z, low, scores[r][0]);
      scores[r][1] = _mm512_fmadd_ps(z, high, scores[r][1]);
    }
    rows += kRows;
    panel += kPanelCodes;
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    uint32_t above = Above(scores[r][0], scores[r][1], thresholds[r]);
    if (__builtin_expect(above == 0, 1)) continue;
    float values[kPanelCodes];
    _mm512_storeu_ps(values, scores[r][0]);
    _mm512_storeu_ps(values + 16, scores[r][1]);
    RaiseThreshold(Greatest(values), &thresholds[r], &candidates[r]);
    above = Above(scores[r][0], scores[r][1], thresholds[r]);
    for (; above != 0; above &= above - 1) {
      const int k = __builtin_ctz(above);
      OfferCandidate(values[k], first_code + k, &thresholds[r], &candidates[r]);
    }
  }
}

void Costs(const double* z, int64_t dim, const float* panel, double* costs) {
  __m512d sums[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_pd();
  for (int64_t d = 0; d < dim; ++d) {
    const __m512d value = _mm512_set1_pd(z[d]);
    // The masked conversion, because the plain one makes GCC 12 warn.
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512d difference = _mm512_sub_pd(
          value, _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(panel + 8 * i)));
      sums[i] = _mm512_add_pd(sums[i], _mm512_mul_pd(difference, difference));
    }
    panel += kPanelCodes;
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_storeu_pd(costs + 8 * i, sums[i]);
}

}  // namespace

const ScanKernel kScanAvx512 = {"avx512", kRows, &Scan, &Costs};

}  // namespace internal
}  // namespace semvq

#else

namespace semvq {
namespace internal {

const ScanKernel kScanAvx512 = {"avx512", 0, nullptr, nullptr};

}  // namespace internal
}  // namespace semvq

#endif
