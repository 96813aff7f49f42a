#include "trainer/flags.h"

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace semvq {

absl::StatusOr<Flags> ParseFlags(absl::Span<const std::string> args) {
  static const auto* modes = new std::map<std::string, Flags::RunMode>{
      {"train", Flags::RunMode::kTrain},
      {"eval", Flags::RunMode::kEval},
      {"validate", Flags::RunMode::kValidate},
      {"plan", Flags::RunMode::kPlan}};
  Flags flags;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--help" || arg == "-h") {
      flags.help = true;
      continue;
    }
    if (arg == "--debug_nonfinite") {
      flags.debug_nonfinite = true;
      continue;
    }
    if (arg == "--list_plugins") {
      flags.list_plugins = true;
      continue;
    }
    std::string name = arg, value;
    const size_t equals = arg.find('=');
    if (equals != std::string::npos) {
      name = arg.substr(0, equals);
      value = arg.substr(equals + 1);
    }
    const bool known = name == "--config" || name == "--overlay" ||
                       name == "--merge" || name == "--mode" ||
                       name == "--stages" || name == "--fresh" ||
                       name == "--reuse" || name == "--collective_timeout";
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown argument \"", arg,
                       "\"; --help lists the flags (behind `bazel run "
                       "//trainer` they stand after `--`)"));
    }
    if (equals == std::string::npos) {
      if (i + 1 == args.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, " needs a value: ", name, "=..."));
      }
      value = args[++i];
    }
    if (name == "--config") {
      if (!flags.config.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "--config is given twice (\"", flags.config, "\" and \"", value,
            "\"); give the second as --overlay"));
      }
      flags.config = value;
    } else if (name == "--overlay") {
      for (absl::string_view one :
           absl::StrSplit(value, ',', absl::SkipEmpty())) {
        flags.overlays.emplace_back(one);
      }
    } else if (name == "--merge") {
      flags.merges.push_back(value);
    } else if (name == "--reuse") {
      flags.reuse = value;
    } else if (name == "--stages" || name == "--fresh") {
      auto& names = name == "--stages" ? flags.stages : flags.fresh;
      for (absl::string_view one :
           absl::StrSplit(value, ',', absl::SkipEmpty())) {
        names.emplace_back(one);
      }
    } else if (name == "--collective_timeout") {
      if (!absl::SimpleAtoi(value, &flags.collective_timeout) ||
          flags.collective_timeout < 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("--collective_timeout: got \"", value,
                         "\", expected a number of seconds, 1 or more"));
      }
    } else {
      auto mode = modes->find(value);
      if (mode == modes->end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--mode: got \"", value,
                         "\", expected train, eval, validate or plan"));
      }
      flags.mode = mode->second;
    }
  }
  if (!flags.help && !flags.list_plugins && flags.config.empty()) {
    return absl::InvalidArgumentError(
        "--config is missing; try --config=quickstart.pbtxt, or --help");
  }
  if (!flags.reuse.empty() && flags.mode != Flags::RunMode::kTrain) {
    return absl::InvalidArgumentError(
        "--reuse goes with --mode=train alone: no other mode starts a stage "
        "from an earlier one");
  }
  return flags;
}

std::string HelpText() {
  return R"(SemVQ trains, evaluates and plans vision-language experiments with a semantic
codebook. An experiment is one protobuf text file.

  bazel run //trainer -- --config=quickstart.pbtxt

  --config=FILE      The experiment; looked up in the folder of the call, then in
                     configs/.
  --overlay=FILE     Merged into it; repeat, or separate by commas. Applied in
                     order; looked up like --config.
  --merge=TEXT       The same, as text: --merge='trainer { steps: 10 } seed: 2'.
                     Repeat as needed; applied after the overlays.
  --mode=MODE        train     run all stages: train, evaluate (default). Resumes;
                               a stage whose result is there is not run again.
                     eval      evaluate every stage's newest checkpoint again.
                     validate  check everything up to the plugins' contracts;
                               reads no data.
                     plan      parameters, operations, memory, days on published
                               accelerators; then timed steps on random batches
                               of the full size. Writes nothing.
  --stages=STAGES    Only these stages; to be trained, with those that they start
                     from. The run folder keeps the others.
  --fresh=STAGES     Delete what these stages left in the run folder and start them
                     anew; "all" for every stage.
  --reuse=FOLDER     Another run's folder (runs/quickstart). Stages that are done
                     there, with the same config hash, are not run again: others
                     start from them where they are. So the arms of an ablation
                     that changes later stages share one pretraining.
  --debug_nonfinite  Compute a step whose loss or gradient is not finite once more,
                     and name the tensor that is bad first: a view, a parameter,
                     a gradient. Changes nothing else.
  --collective_timeout=SECONDS
                     Of several ranks (torchrun, srun, mpirun): how long one
                     waits for the others, to meet and in each collective,
                     before it says which are late and ends (600). More than
                     rank 0 takes to train a tokenizer.
  --list_plugins     Every encoder, quantizer, objective, task and data source
                     linked in, with its fields and defaults.
  --help             This text.

Results go to runs/<name> under the folder of the call (checkpoint { folder }).
Exit status: 0 done; 1 the run failed; 2 the command line or the experiment is
wrong; 3 stopped by SIGINT, SIGTERM or SIGUSR1 after saving: the same command
goes on.
)";
}

}  // namespace semvq
