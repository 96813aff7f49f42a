// Where a stage's numbers go: metrics.jsonl, TensorBoard and the progress line.
#ifndef SEMVQ_TRAINER_STAGE_LOG_H_
#define SEMVQ_TRAINER_STAGE_LOG_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/checkpoint/safetensors.h"
#include "core/distributed/communicator.h"
#include "core/forward/types.h"
#include "protos/result.pb.h"
#include "trainer/code_use.h"

namespace semvq {

// Averages logged values between records. Everything is part of the training
// state, so that a resumed run writes the records an undisturbed one writes.
class IntervalMeans {
 public:
  // Scalars, on any device; nothing waits for them.
  void Add(const NamedTensors& values);
  // Makes the sums so far the means over the ranks, which have the same names.
  // Collective.
  void Share(Communicator* group);
  // Means since the last call; remembers the first and the last interval.
  std::map<std::string, double> Take();

  NamedTensors State() const;
  void LoadState(const NamedTensors& state);

  // First and last interval of every value seen.
  std::vector<LoggedValue> Summary() const;

 private:
  struct Sum {
    at::Tensor sum;
    int64_t count = 0;
  };
  std::map<std::string, Sum> sums_;
  std::map<std::string, double> first_, last_;
};

struct StageLogOptions {
  std::string folder;      // Of the stage.
  std::string name;        // Shown in front of the progress line.
  int64_t start_step = 0;  // Records after it, of a run that was cut off, go.
  int64_t total_steps = 0;
  bool tensorboard = true;
};

class StageLog {
 public:
  static absl::StatusOr<std::unique_ptr<StageLog>> Create(
      const StageLogOptions& options);
  ~StageLog();

  // One record of the means at `step`.
  absl::Status Record(int64_t step, const std::map<std::string, double>& means);
  // What a quantizer's codes did in `step`, for TensorBoard: <name>/codes, the
  // codes that occurred; <name>/code_counts and <name>/code_age, how often each
  // did and the steps since it last did.
  absl::Status Codes(int64_t step, const CodeVectors& codes);
  // After each step: redraws the progress line (plain lines when the output is
  // no terminal). `loss`: of the last record, if any; `wait_seconds`: what this
  // step waited for data.
  void Progress(int64_t step, std::optional<double> loss, double wait_seconds);
  // A line of text above the progress line.
  void Print(const std::string& text);
  // Ends the progress line, so that other output starts on a fresh one.
  void Close();

 private:
  StageLog();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_STAGE_LOG_H_
