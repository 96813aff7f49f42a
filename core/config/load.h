// Loads an experiment: reads its texts, merges them in order and resolves its
// stages.
#ifndef SEMVQ_CORE_CONFIG_LOAD_H_
#define SEMVQ_CORE_CONFIG_LOAD_H_

#include <string>
#include <vector>

#include "core/config/source.h"
#include "core/plugin/registry.h"
#include "protos/experiment.pb.h"

namespace semvq {

struct LoadResult {
  Experiment experiment;
  Provenance provenance;
  std::vector<ConfigError> errors;
  // A text's structure was wrong, so that part of it was not read and further
  // checks would only find what follows from that.
  bool syntax_error = false;
};

// Merges `sources` in order: the experiment file, overlays, --merge arguments.
// All errors of all sources are collected; what could be read is there.
LoadResult LoadExperiment(const std::vector<SourceText>& sources,
                          const Registry& registry = Registry::Global());

// One stage: an experiment without `stages`, its overlay merged in.
struct ResolvedStage {
  std::string name;  // "train" when the experiment has no stages.
  Experiment experiment;
  Provenance provenance;
};

struct StagesResult {
  std::vector<ResolvedStage> stages;  // At least one.
  std::vector<ConfigError> errors;
};

StagesResult ResolveStages(const Experiment& experiment,
                           const Provenance& provenance,
                           const Registry& registry = Registry::Global());

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_LOAD_H_
