// Several runs of one experiment as one table.
#ifndef SEMVQ_TOOLS_REPORT_SEEDS_H_
#define SEMVQ_TOOLS_REPORT_SEEDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "protos/result.pb.h"

namespace semvq {

// The results of all stages in a run folder (<folder>/<stage>/result.pbtxt), by
// stage name. NotFound when there is none.
absl::StatusOr<std::vector<StageResult>> ReadRun(const std::string& folder);

// A Markdown table of every headline metric, the codebook's last logged values
// and the costs: mean ± sample standard deviation over `runs`, which must have
// the same stages, tasks and metrics.
absl::StatusOr<std::string> SeedsTable(
    const std::vector<std::vector<StageResult>>& runs);

}  // namespace semvq

#endif  // SEMVQ_TOOLS_REPORT_SEEDS_H_
