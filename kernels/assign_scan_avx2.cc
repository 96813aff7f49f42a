#include "kernels/assign_scan.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("avx2,fma")
#include <immintrin.h>

namespace semvq {
namespace internal {
namespace {

constexpr int kRows = 6;

inline float Greatest(__m256 low, __m256 high) {
  const __m256 eight = _mm256_max_ps(low, high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight),
                           _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  four = _mm_max_ss(four, _mm_movehdup_ps(four));
  return _mm_cvtss_f32(four);
}

// Half a panel: 12 accumulators, 2 panel registers and 1 broadcast fit the 16
// registers.
void ScanHalf(const float* rows, int64_t dim, const float* panel,
              const float* offsets, int64_t first_code, float* thresholds,
              RowCandidates* candidates) {
  __m256 scores[kRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    scores[r][0] = _mm256_loadu_ps(offsets);
    scores[r][1] = _mm256_loadu_ps(offsets + 8);
  }
  for (int64_t d = 0; d < dim; ++d) {
    const __m256 low = _mm256_loadu_ps(panel);
    const __m256 high = _mm256_loadu_ps(panel + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const __m256 z = _mm256_broadcast_ss(rows + r);
      scores[r][0] = _mm256_fmadd_ps(z, low, scores[r][0]);
      scores[r][1] = _mm256_fmadd_ps(z, high, scores[r][1]);
    }
    rows += kRows;
    panel += kPanelCodes;
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const __m256 threshold = _mm256_set1_ps(thresholds[r]);
    const int low =
        _mm256_movemask_ps(_mm256_cmp_ps(scores[r][0], threshold, _CMP_GT_OQ));
    const int high =
        _mm256_movemask_ps(_mm256_cmp_ps(scores[r][1], threshold, _CMP_GT_OQ));
    uint32_t above = static_cast<uint32_t>(low | (high << 8));
    if (__builtin_expect(above == 0, 1)) continue;
    float values[16];
    _mm256_storeu_ps(values, scores[r][0]);
    _mm256_storeu_ps(values + 8, scores[r][1]);
    RaiseThreshold(Greatest(scores[r][0], scores[r][1]), &thresholds[r],
                   &candidates[r]);
    for (; above != 0; above &= above - 1) {
      const int k = __builtin_ctz(above);
      OfferCandidate(values[k], first_code + k, &thresholds[r], &candidates[r]);
    }
  }
}

void Scan(const float* rows, int64_t dim, const float* panel,
          const float* offsets, int64_t first_code, float* thresholds,
          RowCandidates* candidates) {
  ScanHalf(rows, dim, panel, offsets, first_code, thresholds, candidates);
  ScanHalf(rows, dim, panel + 16, offsets + 16, first_code + 16, thresholds,
           candidates);
}

void Costs(const double* z, int64_t dim, const float* panel, double* costs) {
  __m256d sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_pd();
  for (int64_t d = 0; d < dim; ++d) {
    const __m256d value = _mm256_broadcast_sd(z + d);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256d difference =
          _mm256_sub_pd(value, _mm256_cvtps_pd(_mm_loadu_ps(panel + 4 * i)));
      sums[i] = _mm256_add_pd(sums[i], _mm256_mul_pd(difference, difference));
    }
    panel += kPanelCodes;
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm256_storeu_pd(costs + 4 * i, sums[i]);
}

}  // namespace

const ScanKernel kScanAvx2 = {"avx2", kRows, &Scan, &Costs};

}  // namespace internal
}  // namespace semvq

#else

namespace semvq {
namespace internal {

const ScanKernel kScanAvx2 = {"avx2", 0, nullptr, nullptr};

}  // namespace internal
}  // namespace semvq

#endif
