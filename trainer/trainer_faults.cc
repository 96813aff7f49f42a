// What Trainer does about values that are not finite, spikes of the loss, and
// data that are gone.
#include <ATen/Context.h>
#include <torch/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/checkpoint.h"
#include "core/distributed/agree.h"
#include "core/random/stream.h"
#include "core/util/file.h"
#include "trainer/nonfinite.h"
#include "trainer/trainer.h"

namespace semvq {

std::string Trainer::DebugNonFinite(const std::vector<Batch>& micro_batches) {
  const Experiment& e = setup_.experiment;
  std::string found;
  for (size_t micro = 0; micro < micro_batches.size(); ++micro) {
    // As in Step.
    at::manual_seed(StreamKey(e.seed(), "step", step_,
                              micro * setup_.ranks() + setup_.rank()));
    const std::string here = FindNonFinite(
        *model_, teacher_ == nullptr ? nullptr : &teacher_->providers(),
        micro_batches[micro].To(setup_.device, setup_.dtype),
        {/*training=*/true, e.seed(), step_, setup_.group}, e.trainer().bf16());
    // Also when something was found: ranks wait for each other in there.
    if (!found.empty() || here.empty()) continue;
    found = micro_batches.size() == 1
                ? here
                : absl::StrCat("in micro-batch ", micro, ": ", here);
  }
  if (setup_.group != nullptr) {
    const std::vector<std::string> all = setup_.group->AllGatherText(found);
    found.clear();
    for (size_t rank = 0; rank < all.size() && found.empty(); ++rank) {
      if (!all[rank].empty()) {
        found = absl::StrCat("on rank ", rank, ": ", all[rank]);
      }
    }
  }
  return !found.empty()
             ? found
             : "nothing, when it was computed once more: the sum of the "
               "gradients";
}

absl::StatusOr<bool> Trainer::AnswerNonFinite(const StepReport& report) {
  const TrainerConfig& config = setup_.experiment.trainer();
  ++nonfinite_steps_;
  ++nonfinite_in_a_row_;
  Say(absl::StrCat("step ", step_, " is skipped: ", report.nonfinite,
                   " is not finite"));
  if (!report.bad_features.empty()) Say("  " + report.bad_features);
  if (!report.first_nonfinite.empty()) {
    Say(absl::StrCat("  not finite first: ", report.first_nonfinite));
  }
  if (nonfinite_in_a_row_ < config.max_nonfinite_steps()) return false;
  const std::string why = absl::StrCat(
      nonfinite_in_a_row_,
      " steps in a row were not finite, the last because of ", report.nonfinite,
      report.bad_features.empty() ? "" : "; ", report.bad_features,
      report.first_nonfinite.empty()
          ? " (--debug_nonfinite finds where that begins)"
          : absl::StrCat(" (first: ", report.first_nonfinite, ")"),
      "; lower optimizer { lr }, set clip_norm, or look at the data "
      "(trainer { max_nonfinite_steps } sets the limit)");
  if (config.loss_spikes().action() == LossSpikes::ROLL_BACK) {
    const absl::StatusOr<bool> went_back =
        RollBack(step_ - nonfinite_in_a_row_ + 1, why);
    if (!went_back.ok() || *went_back) return went_back;
  }
  return absl::FailedPreconditionError(why);
}

absl::StatusOr<bool> Trainer::AnswerSpike() {
  const std::optional<SpikeDetector::Spike> spike = watch_.Look();
  std::string found;
  if (spike.has_value()) {
    found = absl::StrFormat(
        "%d the loss spiked from step %d on: %.4g is %.1f robust standard "
        "deviations above the median before, %.4g",
        spike->first_step, spike->first_step, spike->loss, spike->deviations,
        spike->median);
  }
  // Ranks see other losses; they do what rank 0's ask for.
  if (setup_.group != nullptr) found = setup_.group->BroadcastText(found);
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(found, absl::MaxSplits(' ', 1));
  int64_t first_step = 0;
  if (!absl::SimpleAtoi(parts.first, &first_step)) return false;
  ++loss_spikes_;
  Say(parts.second);
  if (setup_.experiment.trainer().loss_spikes().action() !=
      LossSpikes::ROLL_BACK) {
    return false;
  }
  return RollBack(first_step, parts.second);
}

void Trainer::Say(const std::string& line) {
  if (log_ != nullptr) log_->Print(line);
}

absl::StatusOr<bool> Trainer::RollBack(int64_t first_bad,
                                       const std::string& why) {
  const Experiment& e = setup_.experiment;
  if (rollbacks_ >= e.trainer().loss_spikes().max_rollbacks()) {
    return absl::FailedPreconditionError(absl::StrCat(
        why, "; training went back ", rollbacks_,
        " times already (trainer { loss_spikes { max_rollbacks } }). Lower "
        "optimizer { lr } or set clip_norm"));
  }
  // As rank 0 sees them: a file system may show others other ones.
  std::vector<std::string> later;
  std::string good;
  absl::Status status;
  if (setup_.rank() == 0) {
    auto all = ListCheckpoints(JoinPath(setup_.folder, "checkpoints"));
    status = all.status();
    if (all.ok()) {
      for (const CheckpointInfo& info : *all) {
        if (info.status.ok() && info.step < first_bad) {
          good = info.path;
          later.clear();
        } else {
          later.push_back(info.path);
        }
      }
    }
  }
  status = AgreeOnStatus(status, setup_.group);
  if (!status.ok()) return status;
  if (setup_.group != nullptr) good = setup_.group->BroadcastText(good);
  if (good.empty()) {
    Say(absl::StrCat("no checkpoint is from before step ", first_bad,
                     " (checkpoint { every keep }); training cannot go back"));
    return false;
  }
  // What must not go back: the data, and what was counted.
  const int64_t spikes = loss_spikes_, rollbacks = rollbacks_ + 1;
  const int64_t nonfinite = nonfinite_steps_;
  const double trained = train_seconds_, waited = wait_seconds_;
  const absl::btree_set<std::string> bad_samples = bad_samples_;
  const int64_t from = step_;
  const int64_t read = samples_;

  status = AgreeOnStatus(Load(good), setup_.group);
  if (!status.ok()) return status;
  samples_ = read;
  status = OpenLoader();
  loss_spikes_ = spikes;
  rollbacks_ = rollbacks;
  nonfinite_steps_ = nonfinite;
  nonfinite_in_a_row_ = 0;
  train_seconds_ = trained;
  wait_seconds_ = waited;
  bad_samples_.insert(bad_samples.begin(), bad_samples.end());
  // Else the next start would go on from the spike.
  for (const std::string& path : later) status.Update(RemoveTree(path));
  Say(absl::StrCat("went back from step ", from, " to the checkpoint of step ",
                   step_, "; the ", (from - step_) * e.trainer().accumulation(),
                   " batches read since then are skipped"));
  if (log_ != nullptr) log_->Close();
  if (status.ok()) status = OpenLog();
  status = AgreeOnStatus(status, setup_.group);
  if (!status.ok()) return status;
  return true;
}

absl::Status Trainer::StopWithoutData(const absl::Status& error) {
  if (log_ != nullptr) log_->Close();
  // Saving is of all ranks, and the others are in the step already.
  if (step_ == 0 || setup_.group != nullptr) return error;
  const absl::Status saved = Save();
  return absl::Status(
      error.code(),
      absl::StrCat(
          error.message(), "\n",
          saved.ok() ? absl::StrCat("Step ", step_,
                                    " is saved; the same command goes on from "
                                    "it when the data are good again")
                     : std::string(saved.message())));
}

}  // namespace semvq
