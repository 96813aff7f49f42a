// Do the codes of a quantizer stay in use on real features? Trains quantizers,
// side by side and on the same batches, on the patch features of a trained
// image encoder, and counts the codes they use.
#ifndef SEMVQ_BENCH_QUANTIZERS_COLLAPSE_H_
#define SEMVQ_BENCH_QUANTIZERS_COLLAPSE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bench/quantizers/collapse_report.h"

namespace semvq {

// Steps that are counted together in training: the quantizers' default
// usage_window.
inline constexpr int64_t kStretch = 200;

struct CollapseOptions {
  std::string run;         // --run: the run folder with the trained encoder.
  std::string config;      // --config; empty: the run's experiment.pbtxt.
  std::string checkpoint;  // --checkpoint; empty: the stage's newest in `run`.
  std::string stage;       // --stage; empty: the experiment's first.
  std::string arms = "collapse.pbtxt";  // --arms
  std::vector<std::string> only;        // --only; empty: all arms.
  // --held_out: streams; empty: those that the stage's tasks evaluate, but for
  // the one it trains on.
  std::vector<std::string> held_out;
  std::vector<uint64_t> seeds = {1};  // --seeds
  int64_t steps = 2000;               // --steps
  std::string json;                   // --json; empty: none is written.
  bool help = false;
};

// `args` without the program's name. InvalidArgument says which is wrong, what
// it got and what is expected.
absl::StatusOr<CollapseOptions> ParseCollapseFlags(
    absl::Span<const std::string> args);
std::string CollapseHelp();

// Relative paths start at `working_folder`; --config is also looked up in
// `config_folders`, --arms in `arms_folders`.
struct CollapsePlaces {
  std::string working_folder;
  std::vector<std::string> config_folders, arms_folders;
};

struct CollapseOutcome {
  std::vector<ArmResult> results;  // By seed, then by arm.
  TableFacts facts;
};

// The encoder is fixed and runs in float32; its training batches are those of
// the stage (stream, transforms, order, batch size). Every arm has the
// trainer's projections to its dimension and back. It minimises the mean
// squared difference of the features from what is projected back, plus its own
// losses with the weights of its entry, by AdamW with the stage's rate,
// schedule (over --steps), decay and clipping; the stage's parameter groups are
// left out, as they name the encoder's parameters. One thread.
//
// Errors of the texts are a report on all of them; NotFound and DataLoss name
// files. `done` is called after every seed with all results so far; an error of
// it ends the run.
absl::StatusOr<CollapseOutcome> RunCollapse(
    const CollapseOptions& options, const CollapsePlaces& places,
    const std::function<absl::Status(const CollapseOutcome&)>& done);

}  // namespace semvq

#endif  // SEMVQ_BENCH_QUANTIZERS_COLLAPSE_H_
