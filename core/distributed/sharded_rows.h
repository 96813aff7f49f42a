// Draws from the rows of all ranks, without gathering them all.
#ifndef SEMVQ_CORE_DISTRIBUTED_SHARDED_ROWS_H_
#define SEMVQ_CORE_DISTRIBUTED_SHARDED_ROWS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/distributed/communicator.h"

namespace semvq {

// Rows [n, ...] of every rank, one rank's after the other's: what one rank with
// the ranks' batches as one batch would have. Without a group, this rank's.
class ShardedRows {
 public:
  // Every rank has as many rows. Nothing waits.
  static ShardedRows Equal(const at::Tensor& rows, Communicator* group);
  // Ranks may have different numbers of rows, none included. Collective, and
  // the host waits for the counts.
  static ShardedRows Counted(const at::Tensor& rows, Communicator* group);

  int64_t size() const { return size_; }  // Of all ranks.

  Communicator* group() const { return group_; }

  // All rows, [size(), ...]. Collective.
  at::Tensor All() const;
  // The rows at `indices` in [0, size()), in that order and the same on every
  // rank, [indices, ...]. Collective; the ranks give the same indices. No more
  // than these rows is sent.
  at::Tensor Take(const std::vector<int64_t>& indices) const;

 private:
  ShardedRows(const at::Tensor& rows, int64_t first, int64_t size,
              Communicator* group)
      : rows_(rows.detach()), first_(first), size_(size), group_(group) {}

  at::Tensor rows_;
  int64_t first_, size_;  // This rank's rows start at first_.
  Communicator* group_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_SHARDED_ROWS_H_
