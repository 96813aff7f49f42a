#ifndef SEMVQ_CORE_METRICS_METRIC_LOG_H_
#define SEMVQ_CORE_METRICS_METRIC_LOG_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/util/file.h"

namespace semvq {

// Names and values of one report, in the order in which they are shown.
using MetricValues = std::vector<std::pair<std::string, double>>;

// Seconds since 1970, with fractions.
double WallTime();

// A log of JSON lines, one record each:
//   {"step":10,"time":1717754400.25,"train/loss":0.5}
// Numbers read back to the same double; JSON has no NaN and infinities, which
// are the strings "NaN", "Infinity" and "-Infinity". Each record reaches the
// kernel in one write as it is logged, so a killed process loses none.
class MetricLogger {
 public:
  // Starts a new log, replacing a file of the name.
  static absl::StatusOr<std::unique_ptr<MetricLogger>> Create(
      const std::string& path);

  // Goes on with a log after a resume from `step`: records of later steps, and
  // a last line that a kill cut short, are dropped first. So the log of a
  // killed and resumed run has the records of an undisturbed one. A missing
  // file is made. DataLoss, with the line, if the file is no such log.
  static absl::StatusOr<std::unique_ptr<MetricLogger>> Resume(
      const std::string& path, int64_t step);

  // InvalidArgument for a negative step, a name given twice, one that is not
  // UTF-8, or "step" or "time".
  absl::Status Log(int64_t step, const MetricValues& values);
  absl::Status Log(int64_t step, const MetricValues& values, double time);

  const std::string& path() const { return file_->path(); }

 private:
  explicit MetricLogger(std::unique_ptr<FileWriter> file)
      : file_(std::move(file)) {}

  std::unique_ptr<FileWriter> file_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_METRICS_METRIC_LOG_H_
