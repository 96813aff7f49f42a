#include "core/quantize/codebook.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <numeric>

#include "core/quantize/code_metrics.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

// Long before any step, and exact in every floating-point type.
constexpr double kNever = -1099511627776.0;  // -2^40

at::Tensor IndexTensor(const std::vector<int64_t>& indices,
                       const at::Tensor& like) {
  return at::tensor(at::ArrayRef<int64_t>(indices), at::kLong)
      .to(like.device());
}

// `count` of [0, n): distinct ones while they last, then all over again.
std::vector<int64_t> DrawRows(int64_t n, int64_t count, uint64_t key) {
  RandomStream stream(key);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t{0});
  std::vector<int64_t> rows;
  rows.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = i % n;
    // A partial Fisher-Yates shuffle.
    if (i < n) std::swap(order[at], order[at + stream.Below(n - at)]);
    rows.push_back(order[at]);
  }
  return rows;
}

}  // namespace

at::Tensor UnitVectors(const at::Tensor& x) {
  // The scale is a constant to autograd: it cancels in the quotient.
  const at::Tensor largest = x.detach().abs().amax(-1, /*keepdim=*/true);
  const at::Tensor scale =
      at::where(largest > 0, largest, at::ones({}, largest.options()));
  const at::Tensor scaled = x / scale;
  // At least 1 unless x is 0: the floor keeps the square root differentiable.
  return scaled / scaled.square().sum(-1, true).clamp_min(0.25).sqrt();
}

at::Tensor SmoothedCounts(const at::Tensor& counts, double epsilon) {
  const at::Tensor total = counts.sum();
  const double floor = epsilon * static_cast<double>(counts.size(0));
  return (counts + epsilon) / (total + floor) * total;
}

void CheckCodes(const at::Tensor& codes, int64_t num_codes,
                const std::string& quantizer) {
  TORCH_CHECK(codes.scalar_type() == at::kLong && codes.dim() >= 1 &&
                  codes.size(-1) == 1,
              "quantizer ", quantizer, ": expected int64 codes [..., 1], got ",
              codes.scalar_type(), " ", codes.sizes());
  if (codes.numel() == 0) return;
  const int64_t low = codes.min().item<int64_t>();
  const int64_t high = codes.max().item<int64_t>();
  TORCH_CHECK(low >= 0 && high < num_codes, "quantizer ", quantizer, ": code ",
              low < 0 ? low : high, " is out of range; expected 0 to ",
              num_codes - 1);
}

InitialCodes KMeansCodes(const at::Tensor& features, int64_t num_codes,
                         int64_t iterations, int64_t samples, Metric metric,
                         uint64_t key) {
  c10::NoGradGuard no_grad;
  const int64_t n = features.size(0);
  at::Tensor points = features.detach();
  if (samples > 0 && samples < n) {
    points = points.index_select(
        0, IndexTensor(DrawRows(n, samples, Mix64(key)), points));
  }
  KMeansOptions options;
  options.clusters = num_codes;
  options.iterations = iterations;
  options.metric = metric;
  options.seed = key;
  const KMeansResult result = KMeans(points, options);
  InitialCodes out;
  out.codes = result.centers.to(features.scalar_type());
  const double scale =
      static_cast<double>(n) / static_cast<double>(points.size(0));
  out.counts = (result.counts.to(features.scalar_type()) * scale).clamp_min(1);
  return out;
}

InitialCodes DataCodes(const at::Tensor& features, int64_t num_codes,
                       uint64_t key) {
  const int64_t n = features.size(0);
  InitialCodes out;
  out.codes = features.detach().index_select(
      0, IndexTensor(DrawRows(n, num_codes, key), features));
  const double share = static_cast<double>(n) / static_cast<double>(num_codes);
  out.counts = at::full({num_codes}, std::max(1.0, share), out.codes.options());
  return out;
}

void PendingStatistics::Add(CodeSums sums, int64_t step) {
  if (!sums_.has_value() || step_ != step) {
    sums_ = std::move(sums);
    step_ = step;
    return;
  }
  sums_->counts = sums_->counts + sums.counts;
  if (sums.sums.defined()) sums_->sums = sums_->sums + sums.sums;
}

std::optional<CodeSums> PendingStatistics::Take() {
  std::optional<CodeSums> taken = std::move(sums_);
  sums_.reset();
  return taken;
}

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
  last_used_.copy_(at::where(counts > 0, step, last_used_));
  last_revived_.copy_(at::where(revived, step, last_revived_));
  revivals_.select(0, now % window_).copy_(revived.sum());
}

at::Tensor CodeHistory::Usage(const at::Tensor& histogram, int64_t now) const {
  const double start = static_cast<double>(now - window_);
  return (last_used_ > start)
      .logical_or(histogram > 0)
      .logical_and(last_revived_ <= start)
      .to(at::kFloat)
      .mean();
}

at::Tensor CodeHistory::Revivals() const {
  return revivals_.sum().to(at::kFloat);
}

at::Tensor CodeHistory::DeadShare(const at::Tensor& histogram,
                                  int64_t now) const {
  const double start = static_cast<double>(now - window_);
  return (last_used_ <= start)
      .logical_and(histogram == 0)
      .to(at::kFloat)
      .mean();
}

NamedTensors CodeHistory::Metrics(const at::Tensor& histogram,
                                  int64_t now) const {
  return {{"perplexity", Perplexity(histogram)},
          {"batch_usage", UsedShare(histogram)},
          {"usage", Usage(histogram, now)},
          {"revivals", Revivals()},
          {"dead_codes", DeadShare(histogram, now)}};
}

FeatureReservoir::FeatureReservoir(int64_t rows, int64_t dim) {
  rows_ = register_buffer("rows", at::zeros({rows, dim}));
}

int64_t FeatureReservoir::EighthOfRows() const {
  return (rows_.size(0) + 7) / 8;
}

void FeatureReservoir::Fill(const at::Tensor& features, uint64_t key) {
  c10::NoGradGuard no_grad;
  rows_.copy_(features.detach().index_select(
      0,
      IndexTensor(DrawRows(features.size(0), rows_.size(0), key), features)));
}

void FeatureReservoir::Offer(const at::Tensor& features,
                             const at::Tensor& usable, int64_t step,
                             uint64_t key) {
  c10::NoGradGuard no_grad;
  if (offers_step_ != step) offers_.clear();
  offers_step_ = step;
  const int64_t n = features.size(0);
  if (n == 0) return;
  // Micro-steps of a step draw apart from each other.
  const at::Tensor drawn = IndexTensor(
      DrawRows(n, std::min(n, EighthOfRows()), Mix64(key + offers_.size())),
      features);
  offers_.emplace_back(features.detach().index_select(0, drawn),
                       usable.index_select(0, drawn));
}

void FeatureReservoir::Commit(int64_t step) {
  c10::NoGradGuard no_grad;
  int64_t slot = step * EighthOfRows();
  for (const auto& [features, usable] : offers_) {
    std::vector<int64_t> slots(features.size(0));
    for (int64_t& s : slots) s = slot++ % rows_.size(0);
    const at::Tensor index = IndexTensor(slots, rows_);
    rows_.index_copy_(
        0, index,
        at::where(usable.unsqueeze(1), features.to(rows_.scalar_type()),
                  rows_.index_select(0, index)));
  }
  offers_.clear();
}

at::Tensor FeatureReservoir::Draw(const at::Tensor& wanted,
                                  uint64_t key) const {
  const int64_t rows = rows_.size(0);
  const at::Tensor order = IndexTensor(DrawRows(rows, rows, key), rows_);
  const at::Tensor rank = (wanted.to(at::kLong).cumsum(0) - 1).remainder(rows);
  return rows_.index_select(0, order.index_select(0, rank));
}

}  // namespace semvq
