// Batches and what was made of them, between ranks.
#ifndef SEMVQ_TRAINER_BATCH_SHARE_H_
#define SEMVQ_TRAINER_BATCH_SHARE_H_

#include <ATen/core/Tensor.h>

#include <utility>

#include "absl/status/statusor.h"
#include "core/forward/batch.h"
#include "core/plugin/task.h"
#include "trainer/batch_share.pb.h"

namespace semvq {

// The batch's pixels are left out.
BatchShare PackBatch(const Batch& batch, const BatchOutcome& outcome);

// The reverse: the batch as WithoutPixels leaves it. Tensors go to `device`,
// but those of the outcome that were on the CPU. Internal for a message that
// PackBatch has not made.
absl::StatusOr<std::pair<Batch, BatchOutcome>> UnpackBatch(
    const BatchShare& share, at::Device device);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_BATCH_SHARE_H_
