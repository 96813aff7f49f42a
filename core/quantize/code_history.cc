#include "core/quantize/code_history.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/quantize/code_metrics.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

// Long before any step, and exact in every floating-point type.
constexpr double kNever = -1099511627776.0;  // -2^40

// A cell of CodeCounter::kMostCounted for each code below 2^31. Rounds of
// shifts and multiplications by odd numbers below 2^31, so that no product of
// 32 bits with one leaves int64.
at::Tensor Cells(const at::Tensor& codes) {
  constexpr int64_t kMask = 0xFFFFFFFF;
  at::Tensor x = codes.bitwise_xor(codes.bitwise_right_shift(16));
  x = (x * int64_t{0x7FEB352D}).bitwise_and(kMask);
  x = x.bitwise_xor(x.bitwise_right_shift(15));
  x = (x * int64_t{0x31848BAB}).bitwise_and(kMask);
  x = x.bitwise_xor(x.bitwise_right_shift(14));
  return x.bitwise_and(CodeCounter::kMostCounted - 1);
}

// From the share of cells that hold a code to the number of codes.
at::Tensor LinearCount(const at::Tensor& used_share) {
  const double cells = CodeCounter::kMostCounted;
  const at::Tensor empty =
      (1 - used_share.to(at::kDouble)).clamp_min(1 / cells);
  return (empty.log() * -cells).to(at::kFloat);
}

}  // namespace

CodeHistory::CodeHistory(int64_t num_codes, int64_t window) : window_(window) {
  last_used_ =
      register_buffer("last_used", at::full({num_codes}, kNever, at::kDouble));
  last_revived_ = register_buffer("last_revived",
                                  at::full({num_codes}, kNever, at::kDouble));
  revivals_ = register_buffer("revivals", at::zeros({window}, at::kDouble));
}

void CodeHistory::Update(const at::Tensor& counts, const at::Tensor& revived,
                         int64_t now) {
  c10::NoGradGuard no_grad;
  const at::Tensor step =
      at::full({}, static_cast<double>(now), last_used_.options());
  const at::Tensor never = at::full({}, kNever, last_used_.options());
  // A later step is that of another training, whose state this one started
  // from.
  for (at::Tensor* last : {&last_used_, &last_revived_})
    last->copy_(at::where(*last > step, never, *last));
  last_used_.copy_(at::where(counts > 0, step, last_used_));
  last_revived_.copy_(at::where(revived, step, last_revived_));
  revivals_.select(0, now % window_).copy_(revived.sum());
  counts_ = counts;
  updated_ = now;
}

at::Tensor CodeHistory::UsedSince(int64_t start, int64_t now) const {
  return (last_used_ > static_cast<double>(start))
      .logical_and(last_used_ <= static_cast<double>(now));
}

at::Tensor CodeHistory::Usage(const at::Tensor& histogram, int64_t now) const {
  const int64_t start = now - window_;
  return UsedSince(start, now)
      .logical_or(histogram > 0)
      .logical_and((last_revived_ <= static_cast<double>(start))
                       .logical_or(last_revived_ > static_cast<double>(now)))
      .to(at::kFloat)
      .mean();
}

at::Tensor CodeHistory::Revivals() const {
  return revivals_.sum().to(at::kFloat);
}

at::Tensor CodeHistory::DeadShare(const at::Tensor& histogram,
                                  int64_t now) const {
  return UsedSince(now - window_, now)
      .logical_or(histogram > 0)
      .logical_not()
      .to(at::kFloat)
      .mean();
}

at::Tensor CodeHistory::Ages(const at::Tensor& histogram, int64_t now) const {
  // This batch's step will be now + 1.
  const double end = static_cast<double>(now + 1);
  const at::Tensor ages =
      at::where(last_used_ <= static_cast<double>(now), end - last_used_,
                at::full({}, end, last_used_.options()))
          .clamp_max(end);
  return at::where(histogram > 0, at::zeros({}, ages.options()), ages)
      .to(at::kFloat);
}

NamedTensors CodeHistory::Metrics(const at::Tensor& histogram,
                                  int64_t now) const {
  const at::Tensor ages = Ages(histogram, now);
  return {{"perplexity", Perplexity(histogram)},
          {"batch_usage", UsedShare(histogram)},
          {"usage", Usage(histogram, now)},
          {"revivals", Revivals()},
          {"dead_codes", DeadShare(histogram, now)},
          {"code_age_mean", ages.mean()},
          {"code_age_max", ages.max()}};
}

NamedTensors CodeHistory::CodeValues() const {
  if (!counts_.defined()) return {};
  return {{"code_counts", counts_}, {"code_age", Ages(counts_, updated_ - 1)}};
}

CodeCounter::CodeCounter(torch::nn::Module* owner, int64_t num_codes,
                         int64_t window)
    : num_codes_(num_codes) {
  history_ = owner->register_module(
      "history",
      std::make_shared<CodeHistory>(std::min(num_codes, kMostCounted), window));
}

NamedTensors CodeCounter::Count(const at::Tensor& codes,
                                const FeatureRows& rows, int64_t step) {
  c10::NoGradGuard no_grad;
  at::Tensor counted = CountedCodes(codes, rows);
  if (hashed())
    counted = at::where(counted < 0, counted, Cells(counted.clamp_min(0)));
  CodeSums counts;
  counts.counts = Histogram(counted, std::min(num_codes_, kMostCounted));
  counts = SumOverRanks(std::move(counts), rows.group);
  const at::Tensor histogram = counts.counts;
  pending_.Add(std::move(counts), step);
  if (!hashed()) return history_->Metrics(histogram, step);
  const at::Tensor window = LinearCount(history_->Usage(histogram, step));
  return {{"codes_in_batch_estimate", LinearCount(UsedShare(histogram))},
          {"codes_in_window_estimate", window},
          {"usage_estimate", window / static_cast<double>(num_codes_)},
          {"perplexity_at_least", Perplexity(histogram)}};
}

void CodeCounter::AfterStep(int64_t step) {
  const std::optional<CodeSums> pending = pending_.Take();
  if (!pending.has_value()) return;
  history_->Update(pending->counts, at::zeros_like(pending->counts, at::kBool),
                   step);
}

NamedTensors CodeCounter::CodeValues() const {
  return hashed() ? NamedTensors() : history_->CodeValues();
}

}  // namespace semvq
