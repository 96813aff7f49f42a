// Checks a resolved stage before anything is built: values, plugins, and the
// contracts between them. All errors are collected.
#ifndef SEMVQ_CORE_CONFIG_VALIDATE_H_
#define SEMVQ_CORE_CONFIG_VALIDATE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "core/config/load.h"
#include "core/config/source.h"
#include "core/plugin/contract.h"
#include "core/plugin/registry.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Everything that can be known to be wrong with `stage` (one of ResolveStages')
// without opening a file: values of the core's messages, names and references,
// plugin kinds, each plugin's own Validate, variables that are not set, and
// contracts. Errors that would only follow from values `provenance` knows to be
// broken are not repeated.
std::vector<ConfigError> ValidateExperiment(
    const Experiment& stage, const Provenance& provenance,
    const Registry& registry = Registry::Global());

// The whole report on a loaded experiment: its own errors and, unless a text's
// structure was wrong, those of its stages. Empty: the experiment may be built.
std::vector<ConfigError> CheckExperiment(
    const LoadResult& loaded, const Registry& registry = Registry::Global());

// The contracts of all instances of a valid stage, matched: every binding names
// an instance that provides the view, with the dimension and codes asked for.
// Besides the plugins' own views, every quantizer instance provides "quantized"
// in its codes' dimension (while its contract is asked for, the book already
// holds that view), and the switch visual_tokens provides the instance "visual"
// with the view "tokens" in its encoder's dimension.
// InvalidArgument with a FormatReport when something does not match.
absl::StatusOr<ContractBook> BuildContracts(
    const Experiment& stage, const Registry& registry = Registry::Global());

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_VALIDATE_H_
