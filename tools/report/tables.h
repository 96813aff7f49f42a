// Finished runs as one table.
#ifndef SEMVQ_TOOLS_REPORT_TABLES_H_
#define SEMVQ_TOOLS_REPORT_TABLES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "protos/result.pb.h"

namespace semvq {

// The results of all stages in a run folder (<folder>/<stage>/result.pbtxt), by
// stage name. NotFound when there is none.
absl::StatusOr<std::vector<StageResult>> ReadRun(const std::string& folder);

// A Markdown table of every headline metric, what the codebook and the
// objectives measured last in training, and the costs: mean ± sample standard
// deviation over `runs`, which must have the same stages, tasks and metrics.
absl::StatusOr<std::string> SeedsTable(
    const std::vector<std::vector<StageResult>>& runs);

// One column of an ablation: its name and its runs, one for each seed.
struct Arm {
  std::string name;
  std::vector<std::vector<StageResult>> runs;
};

// The same rows with a column for each arm. Where an arm lacks a row, it says
// "-"; an arm whose own runs differ in their rows is an error. `tasks_only`:
// the tasks' metrics alone, with the first arm's chance beside them.
absl::StatusOr<std::string> ArmsTable(const std::vector<Arm>& arms,
                                      bool tasks_only = false);

}  // namespace semvq

#endif  // SEMVQ_TOOLS_REPORT_TABLES_H_
