// How tasks see the data and the model while they evaluate.
#ifndef SEMVQ_TRAINER_EVALUATION_H_
#define SEMVQ_TRAINER_EVALUATION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "core/plugin/task.h"
#include "protos/experiment.pb.h"
#include "protos/result.pb.h"
#include "trainer/model.h"

namespace semvq {

struct StageSetup;

class StreamEvalContext : public EvalContext {
 public:
  // All must outlive the context. Passes over a stream that take seconds show
  // their progress on stderr. With a group every rank gets all results; those
  // above 0 have a folder of their own for result files, which goes with the
  // context.
  StreamEvalContext(const StageSetup& setup, Model& model,
                    const TaskConfig& config);
  ~StreamEvalContext() override;

  absl::Status ShareBatches(const std::string& stream, const Compute& compute,
                            const Take& take) override;
  absl::Status ForEachBatch(
      const std::function<absl::Status(const Batch&)>& visit) override;
  absl::Status ForEachBatch(
      const std::string& stream,
      const std::function<absl::Status(const Batch&)>& visit) override;
  absl::Status ForEachText(
      const std::string& stream,
      const std::function<void(const TextRecord&)>& visit) override;
  std::unique_ptr<Forward> MakeForward(const Batch& batch) override;
  int64_t skipped() const override { return skipped_; }
  std::string output_folder() const override { return folder_; }
  uint64_t seed() const override;

 private:
  class Pass;

  const StageSetup& setup_;
  Model& model_;
  const TaskConfig& config_;
  std::string folder_;
  int64_t skipped_ = 0;
};

// The tasks of a stage that are evaluated already, kept in a file of the
// stage's folder while the others are: an evaluation that was killed does not
// do them again. Void for another config or another number of steps.
class FinishedTasks {
 public:
  FinishedTasks(std::string folder, const std::string& config_hash,
                int64_t steps);

  // Null when the task is to be evaluated; so also when a result file that it
  // wrote is gone.
  const TaskSummary* Find(const std::string& task) const;
  // `seconds`: what evaluating it took.
  absl::Status Add(const TaskSummary& task, double seconds);
  // Of all tasks, over all starts.
  double seconds() const { return record_.eval_seconds(); }

  // Where they are kept; to be removed when the stage's result is written.
  static std::string Path(const std::string& folder);

 private:
  std::string folder_;
  StageResult record_;
};

TaskSummary ToSummary(const std::string& name, const TaskResult& result);

// Milliseconds since the kernel started this process.
double ProcessAgeMs();
// The most resident memory this process has had.
int64_t PeakMemoryBytes();

}  // namespace semvq

#endif  // SEMVQ_TRAINER_EVALUATION_H_
