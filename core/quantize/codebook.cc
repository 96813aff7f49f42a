#include "core/quantize/codebook.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <unordered_map>

#include "core/random/stream.h"
#include "kernels/assign.h"

namespace semvq {
namespace {

at::Tensor IndexTensor(const std::vector<int64_t>& indices,
                       const at::Tensor& like) {
  return at::tensor(at::ArrayRef<int64_t>(indices), at::kLong)
      .to(like.device());
}

// `count` of [0, n): distinct ones while they last, then all over again.
std::vector<int64_t> DrawRows(int64_t n, int64_t count, uint64_t key) {
  RandomStream stream(key);
  // A partial Fisher-Yates shuffle of 0, 1, ..., n - 1, of which only what has
  // left its place is kept: n is that of all ranks.
  std::unordered_map<int64_t, int64_t> moved;
  const auto value_at = [&moved](int64_t place) {
    const auto found = moved.find(place);
    return found == moved.end() ? place : found->second;
  };
  std::vector<int64_t> rows;
  rows.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    if (i >= n) {
      rows.push_back(rows[i - n]);
      continue;
    }
    const int64_t other = i + stream.Below(n - i);
    rows.push_back(value_at(other));
    moved[other] = value_at(i);
  }
  return rows;
}

// What rank 0 has computed, so that no difference between machines, however
// small, sets the ranks apart for good.
InitialCodes OfRankZero(InitialCodes codes, Communicator* group) {
  if (group == nullptr) return codes;
  return {group->Broadcast(codes.codes, 0), group->Broadcast(codes.counts, 0),
          group->Broadcast(codes.spread, 0)};
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

InitialCodes KMeansCodes(const ShardedRows& features, int64_t num_codes,
                         int64_t iterations, int64_t samples, Metric metric,
                         uint64_t key) {
  c10::NoGradGuard no_grad;
  const int64_t n = features.size();
  const at::Tensor points =
      samples > 0 && samples < n
          ? features.Take(DrawRows(n, samples, Mix64(key)))
          : features.All();
  KMeansOptions options;
  options.clusters = num_codes;
  options.iterations = iterations;
  options.metric = metric;
  options.seed = key;
  const KMeansResult result = KMeans(points, options);
  InitialCodes out;
  out.codes = result.centers.to(points.scalar_type());
  const double scale =
      static_cast<double>(n) / static_cast<double>(points.size(0));
  out.counts = (result.counts.to(points.scalar_type()) * scale).clamp_min(1);
  // Of huge features it may be infinite.
  out.spread = at::full({}, result.errors.back(), at::kDouble).to(out.codes);
  return OfRankZero(std::move(out), features.group());
}

InitialCodes DataCodes(const ShardedRows& features, int64_t num_codes,
                       uint64_t key) {
  const int64_t n = features.size();
  InitialCodes out;
  out.codes = features.Take(DrawRows(n, num_codes, key));
  const double share = static_cast<double>(n) / static_cast<double>(num_codes);
  out.counts = at::full({num_codes}, std::max(1.0, share), out.codes.options());
  // Of as many other features.
  const at::Tensor others = features.Take(DrawRows(n, num_codes, Mix64(key)));
  out.spread =
      (others - out.codes.index_select(0, AssignNearest(others, out.codes)))
          .square()
          .sum(1)
          .mean();
  return out;
}

CodeSums SumOverRanks(CodeSums own, Communicator* group) {
  if (group == nullptr) return own;
  if (!own.sums.defined()) return {group->AllReduceSum(own.counts), {}};
  const std::vector<at::Tensor> sums =
      group->AllReduceSum(std::vector<at::Tensor>{own.counts, own.sums});
  return {sums[0], sums[1]};
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

FeatureReservoir::FeatureReservoir(int64_t rows, int64_t dim) {
  rows_ = register_buffer("rows", at::zeros({rows, dim}));
}

int64_t FeatureReservoir::EighthOfRows() const {
  return (rows_.size(0) + 7) / 8;
}

void FeatureReservoir::Fill(const ShardedRows& features, uint64_t key) {
  c10::NoGradGuard no_grad;
  rows_.copy_(features.Take(DrawRows(features.size(), rows_.size(0), key)));
}

void FeatureReservoir::Offer(const at::Tensor& features,
                             const at::Tensor& usable, int64_t step,
                             uint64_t key, Communicator* group) {
  c10::NoGradGuard no_grad;
  if (offers_step_ != step) offers_.clear();
  offers_step_ = step;
  const ShardedRows rows = ShardedRows::Equal(features, group);
  if (rows.size() == 0) return;
  // Micro-steps of a step draw apart from each other.
  const std::vector<int64_t> drawn =
      DrawRows(rows.size(), std::min(rows.size(), EighthOfRows()),
               Mix64(key + offers_.size()));
  const ShardedRows may_enter =
      ShardedRows::Equal(usable.to(features.scalar_type()), group);
  offers_.emplace_back(rows.Take(drawn), may_enter.Take(drawn) > 0);
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
