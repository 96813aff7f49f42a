// What a run prints before and after.
#ifndef SEMVQ_TRAINER_REPORT_H_
#define SEMVQ_TRAINER_REPORT_H_

#include <string>
#include <vector>

#include "core/config/load.h"
#include "protos/experiment.pb.h"
#include "protos/result.pb.h"

namespace semvq {

// A few lines: name, summary, config hash, and each stage's composition.
std::string FormatExperiment(const Experiment& experiment,
                             const std::vector<ResolvedStage>& stages);

// The closing table: each loss's start and end, the codebook's usage and
// perplexity, each task's metrics beside chance, and the costs.
std::string FormatResults(const std::vector<StageResult>& results);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_REPORT_H_
