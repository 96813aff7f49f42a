// Tells when the loss has jumped.
#ifndef SEMVQ_TRAINER_SPIKE_DETECTOR_H_
#define SEMVQ_TRAINER_SPIKE_DETECTOR_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "protos/experiment.pb.h"

namespace semvq {

// Compares each step's loss with the median and the spread of those before it
// (LossSpikes in protos/experiment.proto has the rule). Both are robust: half
// of the window would have to be bad before they follow.
class SpikeDetector {
 public:
  explicit SpikeDetector(const LossSpikes& config) : config_(config) {}

  struct Spike {
    int64_t first_step = 0;  // The first of the steps that make it.
    double loss = 0;         // Of the last of them.
    double median = 0;
    double deviations = 0;  // By so many robust standard deviations above.
  };

  // The finite loss of the optimizer step that ended with `step` steps done;
  // steps ascend. After a spike the window starts empty: the loss may stay at
  // its new level, and that is then no spike.
  std::optional<Spike> Add(int64_t step, double loss);

  // Everything that later answers depend on, as text.
  std::string State() const;
  // False when `state` is none; the detector is then as new.
  bool LoadState(const std::string& state);

 private:
  LossSpikes config_;
  std::deque<double> window_;
  int64_t first_step_ = 0;
  int64_t in_a_row_ = 0;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_SPIKE_DETECTOR_H_
