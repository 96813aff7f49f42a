// The loss of every step, looked at when a record is written.
#ifndef SEMVQ_TRAINER_LOSS_WATCH_H_
#define SEMVQ_TRAINER_LOSS_WATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/forward/types.h"
#include "protos/experiment.pb.h"
#include "trainer/spike_detector.h"

namespace semvq {

// Keeps the losses on the device until somebody looks, so that no step waits
// for them.
class LossWatch {
 public:
  explicit LossWatch(const LossSpikes& config)
      : on_(config.threshold() > 0), detector_(config) {}

  // What a step that ended with `step` steps done reports: the mean of its
  // values named "loss", one a micro-batch, is its loss.
  void Add(int64_t step, const NamedTensors& values);
  // Looks at the losses added since the last call. Waits for the device. The
  // first spike among them; what came after it is then forgotten.
  std::optional<SpikeDetector::Spike> Look();

  // All that later answers depend on. Waits for the device.
  std::string State() const;
  // False when `state` is not one of State(); the watch is then as new.
  bool LoadState(const std::string& state);

 private:
  bool on_;
  SpikeDetector detector_;
  std::vector<std::pair<int64_t, at::Tensor>> pending_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_LOSS_WATCH_H_
