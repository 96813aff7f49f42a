#include "core/plugin/task.h"

#include <torch/types.h>

#include <utility>

namespace semvq {

absl::Status EvalContext::ShareBatches(const std::string& stream,
                                       const Compute& compute,
                                       const Take& take) {
  const auto visit = [&](const Batch& batch) -> absl::Status {
    absl::StatusOr<BatchOutcome> outcome = compute(batch);
    if (!outcome.ok()) return outcome.status();
    return take(WithoutPixels(batch), *std::move(outcome));
  };
  return stream.empty() ? ForEachBatch(visit) : ForEachBatch(stream, visit);
}

Batch WithoutPixels(Batch batch) {
  batch.images =
      at::empty({batch.images.size(0), batch.images.size(1), 0}, at::kFloat);
  return batch;
}

}  // namespace semvq
