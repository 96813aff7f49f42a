#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/quantizers/collapse.h"

namespace semvq {
namespace {

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "; --help lists the flags"));
}

}  // namespace

absl::StatusOr<CollapseOptions> ParseCollapseFlags(
    absl::Span<const std::string> args) {
  CollapseOptions options;
  const std::map<std::string, std::string*> texts = {
      {"--run", &options.run},
      {"--config", &options.config},
      {"--checkpoint", &options.checkpoint},
      {"--stage", &options.stage},
      {"--arms", &options.arms},
      {"--json", &options.json}};
  for (const std::string& arg : args) {
    if (arg == "--help" || arg == "-h") {
      options.help = true;
      return options;
    }
    const std::pair<std::string, std::string> flag =
        absl::StrSplit(arg, absl::MaxSplits('=', 1));
    const auto& [name, value] = flag;
    const std::vector<std::string> list =
        absl::StrSplit(value, ',', absl::SkipEmpty());
    const auto text = texts.find(name);
    const bool known = text != texts.end() || name == "--only" ||
                       name == "--held_out" || name == "--seeds" ||
                       name == "--steps";
    if (!known) return Wrong(absl::StrCat("unknown argument \"", arg, "\""));
    if (value.empty()) {
      return Wrong(absl::StrCat(name, " needs a value: ", name, "=..."));
    }
    if (text != texts.end()) {
      *text->second = value;
    } else if (name == "--only") {
      options.only = list;
    } else if (name == "--held_out") {
      options.held_out = list;
    } else if (name == "--steps") {
      if (!absl::SimpleAtoi(value, &options.steps) || options.steps < 1) {
        return Wrong(absl::StrCat("--steps: got \"", value,
                                  "\", expected a number from 1"));
      }
    } else {
      options.seeds.clear();
      for (const std::string& item : list) {
        uint64_t seed = 0;
        if (!absl::SimpleAtoi(item, &seed)) {
          return Wrong(absl::StrCat("--seeds: got \"", item,
                                    "\", expected whole numbers such as "
                                    "1,2,3"));
        }
        options.seeds.push_back(seed);
      }
    }
  }
  if (options.run.empty() &&
      (options.config.empty() || options.checkpoint.empty())) {
    return Wrong(
        "--run is missing: the folder of a run that trained the image "
        "encoder, such as --run=runs/quickstart (or both --config and "
        "--checkpoint)");
  }
  return options;
}

std::string CollapseHelp() {
  return R"(Trains quantizers on the features of a trained image encoder, all on the same
batches, and prints how many of their codes they use.

  bazel run //bench/quantizers:collapse -- --run=runs/quickstart

  --run=FOLDER       A run that trained the encoder: its experiment.pbtxt and the
                     newest checkpoint of the stage are taken.
  --config=FILE      The experiment instead of the run's (encoder, data, optimizer);
                     looked up in the folder of the call, then in configs/.
  --checkpoint=PATH  The weights instead of the run's: a folder of checkpoints, a
                     checkpoint, or a .safetensors file.
  --stage=NAME       The stage; without it, the experiment's first.
  --arms=FILE        The quantizers { ... } to train; looked up in the folder of the
                     call, then beside this program's source. Without it:
                     collapse.pbtxt, every quantizer with its default options.
  --only=A,B         Only these of them.
  --held_out=S,T     Streams to count on; without it, those that the stage's tasks
                     evaluate.
  --seeds=1,2,3      Of the batches, the start and the quantizers' draws; the
                     encoder stays the same. Default: 1.
  --steps=N          Default: 2000.
  --json=FILE        Also writes every number here, after each seed.

Exit status: 0 done; 1 the run failed; 2 the command line or a text is wrong.
docs/quantizers.md explains the table.
)";
}

}  // namespace semvq
