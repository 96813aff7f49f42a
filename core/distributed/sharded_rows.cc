#include "core/distributed/sharded_rows.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace semvq {

ShardedRows ShardedRows::Equal(const at::Tensor& rows, Communicator* group) {
  const int64_t n = rows.size(0);
  if (group == nullptr) return ShardedRows(rows, 0, n, nullptr);
  return ShardedRows(rows, group->rank() * n, group->size() * n, group);
}

ShardedRows ShardedRows::Counted(const at::Tensor& rows, Communicator* group) {
  const int64_t n = rows.size(0);
  if (group == nullptr) return ShardedRows(rows, 0, n, nullptr);
  const at::Tensor counts = group->AllGather(at::full({}, n, at::kLong));
  return ShardedRows(rows,
                     counts.narrow(0, 0, group->rank()).sum().item<int64_t>(),
                     counts.sum().item<int64_t>(), group);
}

at::Tensor ShardedRows::All() const {
  return group_ == nullptr ? rows_ : group_->AllGatherRows(rows_);
}

at::Tensor ShardedRows::Take(const std::vector<int64_t>& indices) const {
  c10::NoGradGuard no_grad;
  const auto index_of = [this](const std::vector<int64_t>& list) {
    return at::tensor(at::ArrayRef<int64_t>(list), at::kLong)
        .to(rows_.device());
  };
  if (group_ == nullptr) return rows_.index_select(0, index_of(indices));
  // Every rank puts its own rows in their places, and the sum is a gather: the
  // other addends are 0.
  std::vector<int64_t> places, own;
  for (size_t i = 0; i < indices.size(); ++i) {
    const int64_t at = indices[i] - first_;
    if (at < 0 || at >= rows_.size(0)) continue;
    places.push_back(static_cast<int64_t>(i));
    own.push_back(at);
  }
  std::vector<int64_t> shape = rows_.sizes().vec();
  shape[0] = static_cast<int64_t>(indices.size());
  at::Tensor taken = at::zeros(shape, rows_.options());
  if (!own.empty()) {
    taken.index_copy_(0, index_of(places),
                      rows_.index_select(0, index_of(own)));
  }
  return group_->AllReduceSum(taken);
}

}  // namespace semvq
