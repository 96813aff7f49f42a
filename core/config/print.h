// The resolved experiment as text, as a hash, and with variables filled in.
#ifndef SEMVQ_CORE_CONFIG_PRINT_H_
#define SEMVQ_CORE_CONFIG_PRINT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "core/config/source.h"
#include "core/plugin/registry.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Canonical text: fields in the schema's order, Any expanded. Reading it back
// gives an equal experiment.
std::string PrintExperiment(const Experiment& experiment);

// 16 hexadecimal digits that name what is computed: the first of SHA-256 over
// the canonical text, without what cannot change a result, and what only says
// when a run stops or goes back. Left out, in stages too:
//   name, summary, device, checkpoint, logging,
//   data.{workers, prefetch, cache_bytes, max_bad_fraction},
//   trainer.{threads, max_nonfinite_steps, loss_spikes}.
// Variables are not filled in, so that the hash does not depend on the machine.
std::string ConfigHash(const Experiment& experiment);

using Environment =
    std::function<absl::optional<std::string>(const std::string& name)>;

// The process's environment, with defaults for the cache: SEMVQ_CACHE is
// ${XDG_CACHE_HOME}/semvq, else ~/.cache/semvq; SEMVQ_DATA is
// ${SEMVQ_CACHE}/data.
absl::optional<std::string> GetVariable(const std::string& name);

// Replaces ${NAME} in every string of the experiment, plugin configs too;
// $${ stands for ${. The experiment that is printed, hashed and saved keeps the
// variables; expand a copy where files are opened. Undefined variables and
// unclosed ${ are errors at their place, and stay as they are.
std::vector<ConfigError> ExpandVariables(
    const Provenance& provenance, Experiment* experiment,
    const Registry& registry = Registry::Global(),
    const Environment& environment = GetVariable);

// For --list_plugins: every linked-in type by kind, its one-line doc and its
// config's fields with their types and defaults.
std::string ListPlugins(const Registry& registry = Registry::Global());

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_PRINT_H_
