// Interface of the downstream tasks.
#ifndef SEMVQ_CORE_PLUGIN_TASK_H_
#define SEMVQ_CORE_PLUGIN_TASK_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/forward/forward.h"
#include "core/plugin/objective.h"

namespace semvq {

// What a task keeps of a batch that it has computed.
struct BatchOutcome {
  std::vector<at::Tensor> tensors;  // Dense.
  std::vector<std::string> texts;
};

// What a task may use while it evaluates. Modules are in evaluation mode and
// gradients are off unless a task turns them on itself. All functions that read
// a stream are collective: every rank calls them alike, and gets the same.
class EvalContext {
 public:
  virtual ~EvalContext() = default;
  using Compute =
      std::function<absl::StatusOr<BatchOutcome>(const Batch& batch)>;
  using Take =
      std::function<absl::Status(const Batch& batch, BatchOutcome outcome)>;

  // What costs is shared among the ranks. Each batch of `stream` (empty: the
  // task's own), with all texts of each image and evaluation transforms, is
  // given to `compute` on one rank. Then `take` gets, on every rank and in the
  // stream's order, the batch with images [B, S, 0] and what `compute` made of
  // it, its tensors on the devices where they were. Batches that `take` has
  // not seen yet may have been computed. Stops at the first error. Samples
  // skipped as bad are counted in skipped().
  virtual absl::Status ShareBatches(const std::string& stream,
                                    const Compute& compute, const Take& take);
  // Calls `visit` for every batch of the task's stream, in order, on every
  // rank: for what needs all pixels. The rest is as above.
  virtual absl::Status ForEachBatch(
      const std::function<absl::Status(const Batch&)>& visit) = 0;
  // The same for another stream of the experiment.
  virtual absl::Status ForEachBatch(
      const std::string& stream,
      const std::function<absl::Status(const Batch&)>& visit) = 0;
  // Every text of a stream, without decoding its images.
  virtual absl::Status ForEachText(
      const std::string& stream,
      const std::function<void(const TextRecord&)>& visit) = 0;
  // A Forward over `batch`, which must outlive it.
  virtual std::unique_ptr<Forward> MakeForward(const Batch& batch) = 0;
  // How many samples were skipped by the last pass over a stream.
  virtual int64_t skipped() const = 0;
  // Folder for result files; exists.
  virtual std::string output_folder() const = 0;
  virtual uint64_t seed() const = 0;
};

// The batch with images [B, S, 0].
Batch WithoutPixels(Batch batch);

struct TaskMetric {
  std::string name;   // "TR R@1"
  double value = 0;   // In the unit's natural scale: percentages are 0..100.
  double chance = 0;  // What guessing gives; NaN where that has no meaning.
  std::string unit;   // "%", "" ...
  bool headline = false;  // Shown in the closing table; the others go to the
                          // result file and the log.
};

struct TaskResult {
  std::vector<TaskMetric> metrics;
  std::vector<std::string> files;  // Result files written.
  std::string note;  // What the table's reader must know: the protocol in a few
                     // words, skipped samples.
};

// A task evaluates, and may bring the objective it is fine-tuned with. It may
// provide views (its head's logits).
class Task : public torch::nn::Module, public ViewProvider {
 public:
  virtual absl::StatusOr<TaskResult> Evaluate(EvalContext& context) = 0;
  // What fine-tuning optimises; null: the task can only be evaluated. Its
  // losses are logged as <instance>/<name>.
  virtual bool can_fine_tune() const { return false; }
  virtual ObjectiveOutput Compute(Forward& /*forward*/) { return {}; }
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_TASK_H_
