// The stages of one checked experiment, in its run folder.
#ifndef SEMVQ_TRAINER_EXPERIMENT_RUN_H_
#define SEMVQ_TRAINER_EXPERIMENT_RUN_H_

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/config/load.h"
#include "core/distributed/rank_session.h"
#include "core/text/tokenizer.h"
#include "protos/result.pb.h"
#include "trainer/flags.h"
#include "trainer/streams.h"
#include "trainer/trainer.h"

namespace semvq {

// For each of `stages`, whether --stages means it: without the flag all are
// meant; with it those named and, in training, those they start from.
// InvalidArgument when --stages or --fresh names no stage.
absl::StatusOr<std::vector<bool>> ChooseStages(
    const std::vector<ResolvedStage>& stages, const Flags& flags);

// Layout of a run folder:
//   experiment.pbtxt                the resolved experiment; alone it
//   reproduces
//                                   the run
//   tokenizer.model                 when it was trained here
//   <stage>/checkpoints/step_...    <stage>/metrics.jsonl
//   <stage>/tensorboard/            <stage>/bad_samples.txt
//   <stage>/evaluated.pbtxt         its tasks evaluated so far, until it has
//                                   ended
//   <stage>/result.pbtxt            there when the stage has ended
//   errors/rank_N.txt               what ended a rank of several
// Several ranks share the folder; rank 0 alone writes to it.
class ExperimentRun {
 public:
  // `stages` were checked; `chosen` says which of them are meant
  // (ChooseStages). Working folder: where relative paths start. `ranks`: those
  // that run it together, this one among them; null: this process alone.
  ExperimentRun(const Experiment& experiment, std::vector<ResolvedStage> stages,
                std::vector<bool> chosen, const Flags& flags,
                std::string working_folder, const std::atomic<int>* stop_signal,
                RankSession* ranks = nullptr);

  // Every file that a chosen stage will read and that is not there, in one
  // error that says what it should hold.
  absl::Status CheckFiles();
  // Device, process group, folder and tokenizer; FailedPrecondition when the
  // folder holds another experiment, or the ranks are not alike.
  absl::Status Prepare();
  // All chosen stages; the report has what is there of the others, too.
  // Cancelled when stopped by a signal.
  absl::Status Run();
  // Timed steps on random batches of the full size; see plan.h.
  absl::Status Plan();

  const std::string& folder() const { return folder_; }
  const std::vector<StageResult>& results() const { return results_; }

 private:
  absl::Status ChooseDevice();
  // Finds the chosen stages that --reuse's run has done; NotFound without any.
  absl::Status FindReused();
  // All that should be the same on every rank before any data is read.
  absl::Status CheckRanks();
  absl::Status PrepareFolder();
  // Of another rank than 0: that the folder is the one that rank 0 prepared.
  absl::Status CheckFolder() const;
  absl::Status PrepareTokenizer();
  // That all ranks read the same data in this stage.
  absl::Status CheckData(const Experiment& stage);
  int64_t rank() const { return ranks_ == nullptr ? 0 : ranks_->launch().rank; }
  Communicator* group() const {
    return ranks_ == nullptr ? nullptr : ranks_->group();
  }
  // Waits for all ranks.
  void Barrier();
  // What rank 0 thinks.
  bool AsRankZero(bool mine);
  absl::StatusOr<StageSetup> Setup(size_t index);
  absl::Status RunStage(size_t index);
  // A stage that is not chosen: its result, if the folder has one of it.
  absl::Status ReadFinished(size_t index);
  absl::StatusOr<InitFrom> ResolveInit(const Experiment& stage) const;
  // In this run's folder, or in the one that it is reused from.
  std::string StageFolder(const std::string& stage) const;
  bool IsFresh(const std::string& stage) const;

  Experiment experiment_;              // As loaded, with stages.
  std::vector<ResolvedStage> stages_;  // Variables kept.
  std::vector<bool> chosen_;           // One each.
  std::vector<Experiment> expanded_;   // One each, variables expanded.
  std::vector<std::string> hashes_;    // One each.
  std::set<std::string> reused_;       // Names of stages done in reuse_folder_.
  Flags flags_;
  std::string working_folder_, folder_, reuse_folder_;
  const std::atomic<int>* stop_signal_;
  RankSession* ranks_;
  at::Device device_ = at::kCPU;
  Streams streams_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<StageResult> results_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_EXPERIMENT_RUN_H_
