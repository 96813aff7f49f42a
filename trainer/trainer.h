// Trains and evaluates one stage of an experiment.
#ifndef SEMVQ_TRAINER_TRAINER_H_
#define SEMVQ_TRAINER_TRAINER_H_

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/distributed/activity.h"
#include "core/distributed/communicator.h"
#include "core/distributed/gradient_reducer.h"
#include "core/forward/forward.h"
#include "core/plugin/contract.h"
#include "core/text/tokenizer.h"
#include "data/loader.h"
#include "protos/experiment.pb.h"
#include "protos/result.pb.h"
#include "trainer/loss_watch.h"
#include "trainer/losses.h"
#include "trainer/model.h"
#include "trainer/optimizer.h"
#include "trainer/stage_log.h"
#include "trainer/streams.h"

namespace semvq {

// All that a stage's run needs and does not own.
struct StageSetup {
  std::string name;
  Experiment experiment;    // Resolved, variables expanded.
  std::string config_text;  // Resolved, variables kept: what is saved.
  std::string config_hash;
  ContractBook book;
  const Tokenizer* tokenizer = nullptr;  // Null without text.
  Streams* streams = nullptr;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;  // Of parameters and pixels.
  // The ranks that run this stage together; null: this process alone. Must
  // outlive the trainer.
  Communicator* group = nullptr;
  // Where their watchdogs see what this rank does; null: nobody watches.
  Activity* activity = nullptr;
  std::string folder;  // Of this stage, in the run folder.
  // Batches come from the caller of Step (--mode=plan); no data is opened.
  bool random_data = false;
  // A step that is not finite is computed again, to find what was bad first.
  bool debug_nonfinite = false;
  // Becomes non-zero when the process was asked to stop.
  const std::atomic<int>* stop_signal = nullptr;

  int64_t rank() const { return group == nullptr ? 0 : group->rank(); }
  int64_t ranks() const { return group == nullptr ? 1 : group->size(); }
};

class FinishedTasks;

class Trainer {
 public:
  // Composes the stage's model, with its teacher, optimizer and data.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(StageSetup setup);

  // Goes on from the stage's newest checkpoint. False when there is none;
  // an error when there is one that does not belong to this stage. Collective.
  // The number of ranks may be another than it was.
  absl::StatusOr<bool> Resume();

  // Trains to the last step and saves. Cancelled when stopped by a signal,
  // after saving. FailedPrecondition after max_nonfinite_steps bad steps in a
  // row, or too many spikes of the loss. The loader's error when there are no
  // more good data, after saving.
  absl::Status Train();

  // Runs the stage's tasks and returns everything to report of the stage. Tasks
  // that `finished` (of this model; null: none) holds are not run, and the
  // others are added to it, each as soon as it has ended. Collective; rank 0's
  // `finished` counts, and its files stay.
  absl::StatusOr<StageResult> Evaluate(FinishedTasks* finished = nullptr);

  Model& model() { return *model_; }
  // The momentum teacher's views; null without a teacher.
  const Providers* teacher() const {
    return teacher_ == nullptr ? nullptr : &teacher_->providers();
  }
  int64_t step() const { return step_; }
  int64_t total_steps() const { return total_steps_; }

  // One optimizer step on given micro-batches; what Train repeats. Public for
  // --mode=plan and tests. With a group it is collective, on this rank's parts
  // of the micro-batches; the first step starts all ranks from rank 0's
  // parameters.
  struct StepReport {
    NamedTensors values;    // Losses, metrics, lr, gradient norm: this rank's.
    std::string nonfinite;  // What was not finite; the step was then skipped.
    // Then: quantizers that got features that are not finite, and how many.
    std::string bad_features;
    std::string first_nonfinite;  // With debug_nonfinite: where that began.
    bool stop = false;            // Some rank was asked to stop.
  };
  absl::StatusOr<StepReport> Step(const std::vector<Batch>& micro_batches);

  // Collective; rank 0 writes.
  absl::Status Save();
  // After the parameters were changed from outside: the teacher starts equal.
  void SyncTeacher();

 private:
  explicit Trainer(StageSetup setup)
      : setup_(std::move(setup)),
        watch_(setup_.experiment.trainer().loss_spikes()) {}
  absl::Status BuildOptimizer();
  // Its folder; empty: there is none.
  absl::StatusOr<std::string> NewestCheckpoint() const;
  // All that a checkpoint holds, into this trainer. Its loader is not moved.
  absl::Status Load(const std::string& checkpoint);
  absl::Status OpenLoader();
  absl::Status OpenLog();
  absl::Status Record(std::optional<double>* loss);
  int64_t SamplesPerMicroStep() const;  // Of all ranks.
  // Rank 0's parameters and buffers for all.
  void BroadcastModels();
  // Before the first step.
  void JoinRanks();
  // Adds the other ranks' to what Save and Evaluate tell.
  void ShareRecords();
  bool stop_asked() const {
    return setup_.stop_signal != nullptr && *setup_.stop_signal != 0;
  }
  absl::Status AfterStep();
  // For a step that is not finite; "" when all features were.
  std::string BadFeatures(const NamedTensors& values) const;
  std::string DebugNonFinite(const std::vector<Batch>& micro_batches);
  // These two tell whether training went back to an earlier checkpoint.
  absl::StatusOr<bool> AnswerNonFinite(const StepReport& report);
  absl::StatusOr<bool> AnswerSpike();
  // To the newest checkpoint with fewer than `first_bad` steps, and past the
  // data read since then. False, with a word to the user, when there is none;
  // `why` is the error when it was done too often.
  absl::StatusOr<bool> RollBack(int64_t first_bad, const std::string& why);
  // A line above the progress, by rank 0.
  void Say(const std::string& line);
  // The error of a loader that has no more data, after saving.
  absl::Status StopWithoutData(const absl::Status& error);
  bool FindFinished(const FinishedTasks* finished, const std::string& task,
                    TaskSummary* summary);
  // Takes over what the loader has found since the last call.
  void NoteBadSamples();
  absl::Status WriteBadSamples() const;
  void UpdateTeacher();
  // Logs how the quantizers' codes are used. Waits for the device.
  absl::Status LogCodes();

  StageSetup setup_;
  std::shared_ptr<Model> model_, teacher_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<GradientReducer> reducer_;  // Null for one rank.
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<StageLog> log_;  // Rank 0's; null on the others.

  int64_t step_ = 0;
  int64_t total_steps_ = 0;
  // Drawn from the stream by all ranks, those that going back skips among
  // them.
  int64_t samples_ = 0;
  int64_t nonfinite_in_a_row_ = 0;
  int64_t nonfinite_steps_ = 0;
  LossWatch watch_;
  int64_t loss_spikes_ = 0;
  int64_t rollbacks_ = 0;
  double train_seconds_ = 0;
  double wait_seconds_ = 0;
  double first_step_ms_ = 0;
  // Of the whole stage, over all its interruptions.
  absl::btree_set<std::string> bad_samples_;
  size_t bad_samples_noted_ = 0;  // Of this loader's.

  IntervalMeans means_;
  StageResult codes_;  // Its `codes` alone, of the last record.
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_TRAINER_H_
