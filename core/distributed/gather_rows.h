// Rows of all ranks as parts of one computation: gradients find their way back.
#ifndef SEMVQ_CORE_DISTRIBUTED_GATHER_ROWS_H_
#define SEMVQ_CORE_DISTRIBUTED_GATHER_ROWS_H_

#include <ATen/core/Tensor.h>

#include "core/distributed/communicator.h"

namespace semvq {

// Both are collective, and so is their backward: every rank's loss must depend
// on what they return, and the ranks' graphs must be alike. A row's gradient is
// the sum of what the losses of all ranks give it; averaged over the ranks with
// the rest, as data-parallel training does, it is that of the mean of the
// losses. A null group is one rank.

// Rows [n_r, ...] of all ranks, which may have different numbers, as
// [sum n_r, ...] in the order of the ranks.
at::Tensor GatherRows(const at::Tensor& rows, Communicator* group);

// Of the rows that GatherRows would return, those at `indices` (int64 [m], each
// rank its own), as [m, ...]. Only they are sent. The host waits for the
// indices.
at::Tensor FetchRows(const at::Tensor& rows, const at::Tensor& indices,
                     Communicator* group);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_GATHER_ROWS_H_
