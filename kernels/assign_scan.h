// The float32 first pass of AssignNearest: scores of a few rows against panels
// of codes, kept in registers and compared there. One source file per
// instruction set; those files include nothing but this and intrinsics, so that
// no inline function of a library is compiled for a processor that may not be
// there.
#ifndef SEMVQ_KERNELS_ASSIGN_SCAN_H_
#define SEMVQ_KERNELS_ASSIGN_SCAN_H_

#include <stdint.h>

namespace semvq {
namespace internal {

// Codes of a panel: panels are packed [ceil(K / 32)][D][32].
constexpr int kPanelCodes = 32;
// The most rows a scan handles at once.
constexpr int kMaxScanRows = 12;
// Candidates kept per row; more of them send the row to the float64 path.
constexpr int kMaxCandidates = 16;

// The codes of one row that may be nearest.
struct RowCandidates {
  float best;    // Greatest score so far.
  float margin;  // Codes this far below it may still be nearest.
  int count;
  bool overflow;  // More candidates than fit.
  float scores[kMaxCandidates];
  int64_t codes[kMaxCandidates];
};

// score(row, code) = <row, code> - half_norm(code). `rows` is packed [D][rows
// of the kernel]; `offsets` holds -half_norm [32]; thresholds [rows] are
// updated with the candidates.
using ScanPanel = void (*)(const float* rows, int64_t dim, const float* panel,
                           const float* offsets, int64_t first_code,
                           float* thresholds, RowCandidates* candidates);

// costs[32]: sum over d, in order, of (z[d] - code[d])^2 for the codes of a
// panel, rounded after every operation. For rows the scan cannot judge.
using CostPanel = void (*)(const double* z, int64_t dim, const float* panel,
                           double* costs);

struct ScanKernel {
  const char* name;
  int rows;
  ScanPanel scan;
  CostPanel costs;
};

// `scan` is null where this build has no such kernel.
extern const ScanKernel kScanGeneric;
extern const ScanKernel kScanAvx2;
extern const ScanKernel kScanAvx512;

// To be called with the greatest score of a panel before its codes are offered:
// then few of them are.
static inline void RaiseThreshold(float greatest, float* threshold,
                                  RowCandidates* row) {
  if (!(greatest > row->best)) return;
  row->best = greatest;
  *threshold = greatest - row->margin;
}

// Keeps a code if its score is above the threshold; codes come in ascending
// order.
static inline void OfferCandidate(float score, int64_t code, float* threshold,
                                  RowCandidates* row) {
  if (!(score > *threshold)) return;
  if (row->count == kMaxCandidates) {
    int kept = 0;
    for (int i = 0; i < row->count; ++i) {
      if (!(row->scores[i] > *threshold)) continue;
      row->scores[kept] = row->scores[i];
      row->codes[kept] = row->codes[i];
      ++kept;
    }
    row->count = kept;
    if (kept == kMaxCandidates) {
      row->overflow = true;
      *threshold = __builtin_inff();
      return;
    }
  }
  row->scores[row->count] = score;
  row->codes[row->count] = code;
  ++row->count;
}

}  // namespace internal
}  // namespace semvq

#endif  // SEMVQ_KERNELS_ASSIGN_SCAN_H_
