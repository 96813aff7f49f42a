// The trainer's command line.
#ifndef SEMVQ_TRAINER_FLAGS_H_
#define SEMVQ_TRAINER_FLAGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace semvq {

struct Flags {
  enum class RunMode { kTrain, kEval, kValidate, kPlan };
  std::string config;                 // --config
  std::vector<std::string> overlays;  // --overlay, in order
  std::vector<std::string> merges;    // --merge, in order
  RunMode mode = RunMode::kTrain;     // --mode
  std::vector<std::string> stages;    // --stages: only these; empty: all.
  std::vector<std::string> fresh;     // --fresh: stages to start anew; "all".
  std::string reuse;                  // --reuse: another run's folder.
  bool debug_nonfinite = false;       // --debug_nonfinite
  // --collective_timeout: seconds that a rank waits for the others.
  int64_t collective_timeout = 600;
  bool list_plugins = false;
  bool help = false;
};

// `args` without the program's name. InvalidArgument names the flag, what was
// got and what is expected.
absl::StatusOr<Flags> ParseFlags(absl::Span<const std::string> args);

// What --help prints.
std::string HelpText();

}  // namespace semvq

#endif  // SEMVQ_TRAINER_FLAGS_H_
