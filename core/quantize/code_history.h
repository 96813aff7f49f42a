// When codes were used: what quantizers report of it, and for how long a code
// has been idle.
#ifndef SEMVQ_CORE_QUANTIZE_CODE_HISTORY_H_
#define SEMVQ_CORE_QUANTIZE_CODE_HISTORY_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "core/forward/types.h"
#include "core/quantize/codebook.h"
#include "core/quantize/rows.h"

namespace semvq {

// When each code was last used and last revived, in optimizer steps. Steps
// `now` are those done; counts and histograms [K] are of all ranks.
class CodeHistory : public torch::nn::Module {
 public:
  // Measures look back `window` >= 1 steps.
  CodeHistory(int64_t num_codes, int64_t window);

  // Ends step `now`: counts [K] of the codes used in it, and the codes revived
  // at its end, bool [K].
  void Update(const at::Tensor& counts, const at::Tensor& revived, int64_t now);

  // Float scalars on the buffers' device.
  // Share of codes used within the window, this batch's `histogram` [K]
  // included. A code revived within the window does not count, used or not, so
  // that revival cannot make a collapsed codebook look alive.
  at::Tensor Usage(const at::Tensor& histogram, int64_t now) const;
  // Revivals within the window; a code revived twice counts twice.
  at::Tensor Revivals() const;
  // Share of codes not used within the window.
  at::Tensor DeadShare(const at::Tensor& histogram, int64_t now) const;

  // Steps since each code was last used, float [K]: 0 when it is in this
  // batch's histogram, 1 when the last step used it; for codes that never were,
  // all steps there have been.
  at::Tensor Ages(const at::Tensor& histogram, int64_t now) const;

  // What every quantizer that counts codes reports of a training batch:
  // perplexity, batch_usage, usage, revivals, dead_codes, code_age_mean and
  // code_age_max (Ages over all codes).
  NamedTensors Metrics(const at::Tensor& histogram, int64_t now) const;

  // Quantizer::CodeValues as of the last Update; nothing before the first.
  NamedTensors CodeValues() const;

 private:
  at::Tensor UsedSince(int64_t start, int64_t now) const;

  int64_t window_;
  at::Tensor last_used_;     // [K]; hugely negative: never.
  at::Tensor last_revived_;  // [K], likewise.
  at::Tensor revivals_;      // [window], by step modulo window.
  at::Tensor counts_;        // Of the last Update, not part of the state.
  int64_t updated_ = 0;
};

// The use of codes, for quantizers that report it and learn nothing from it.
class CodeCounter {
 public:
  // Above so many codes they are counted in so many cells, each code's drawn by
  // a hash; what is then reported is what can be said without a count for each.
  static constexpr int64_t kMostCounted = int64_t{1} << 20;

  // Registers the history's buffers at `owner` as history.*; its module must
  // live as long.
  CodeCounter(torch::nn::Module* owner, int64_t num_codes, int64_t window);

  // Counts a training batch's codes int64 [M]. Returns CodeHistory::Metrics, or
  // of more than kMostCounted codes:
  //   codes_in_batch_estimate, codes_in_window_estimate
  //                        distinct codes, by linear counting (Whang et al.
  //                        1990): -m ln(share of the m cells that are empty);
  //                        at most m ln m = 14.5 million can be told
  //   usage_estimate       the latter as a share of all codes
  //   perplexity_at_least  that of the cells: codes that share one can only
  //                        lower it
  // Collective with a group.
  NamedTensors Count(const at::Tensor& codes, const FeatureRows& rows,
                     int64_t step);
  // As Quantizer::AfterStep.
  void AfterStep(int64_t step);
  // As Quantizer::CodeValues; none of more than kMostCounted codes.
  NamedTensors CodeValues() const;

 private:
  bool hashed() const { return num_codes_ > kMostCounted; }

  int64_t num_codes_;
  std::shared_ptr<CodeHistory> history_;
  PendingStatistics pending_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_CODE_HISTORY_H_
