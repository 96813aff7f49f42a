#include "kernels/assign_scan.h"

namespace semvq {
namespace internal {
namespace {

constexpr int kRows = 4;

void Scan(const float* rows, int64_t dim, const float* panel,
          const float* offsets, int64_t first_code, float* thresholds,
          RowCandidates* candidates) {
  float scores[kRows][kPanelCodes];
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < kPanelCodes; ++k) scores[r][k] = offsets[k];
  }
  for (int64_t d = 0; d < dim; ++d) {
    for (int r = 0; r < kRows; ++r) {
      const float z = rows[r];
      for (int k = 0; k < kPanelCodes; ++k) scores[r][k] += z * panel[k];
    }
    rows += kRows;
    panel += kPanelCodes;
  }
  for (int r = 0; r < kRows; ++r) {
    float greatest = scores[r][0];
    for (int k = 1; k < kPanelCodes; ++k)
      greatest = scores[r][k] > greatest ? scores[r][k] : greatest;
    if (!(greatest > thresholds[r])) continue;
    RaiseThreshold(greatest, &thresholds[r], &candidates[r]);
    for (int k = 0; k < kPanelCodes; ++k) {
      OfferCandidate(scores[r][k], first_code + k, &thresholds[r],
                     &candidates[r]);
    }
  }
}

void Costs(const double* z, int64_t dim, const float* panel, double* costs) {
  for (int k = 0; k < kPanelCodes; ++k) costs[k] = 0;
  for (int64_t d = 0; d < dim; ++d) {
    for (int k = 0; k < kPanelCodes; ++k) {
      const double difference = z[d] - static_cast<double>(panel[k]);
      costs[k] += difference * difference;
    }
    panel += kPanelCodes;
  }
}

}  // namespace

const ScanKernel kScanGeneric = {"generic", kRows, &Scan, &Costs};

}  // namespace internal
}  // namespace semvq
