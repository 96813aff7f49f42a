// What a training step computes and keeps: counted from the operators that are
// executed, not from a formula for each plugin.
#ifndef SEMVQ_TRAINER_STEP_METER_H_
#define SEMVQ_TRAINER_STEP_METER_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace semvq {

// Floating-point operations; a multiply-add counts as two. Elementwise
// operators, norms, softmax, the optimizer and the codebook's search are not
// counted.
struct Flops {
  double matmul = 0;
  // The two products of attention, over all pairs: masks save nothing here. The
  // backward counts four products; a fifth, which fused kernels compute again,
  // does not count.
  double attention = 0;
  double convolution = 0;

  double total() const { return matmul + attention + convolution; }
  Flops& operator+=(const Flops& other);
};

// Counts while it lives, on every thread; one at a time, made and destroyed
// when no operator runs. Memory is that of the tensors on `device`, allocated
// by this thread and those that its backward runs on; what was allocated before
// the meter was made is not known to it, so make it first.
class StepMeter {
 public:
  explicit StepMeter(c10::Device device);
  ~StepMeter();
  StepMeter(const StepMeter&) = delete;
  StepMeter& operator=(const StepMeter&) = delete;

  // Starts a measurement: counts are 0, the peak is what is alive now.
  void Start();

  enum Phase {
    kForward,  // With a graph for the backward.
    kNoGrad,   // Without: the teacher, hard negatives, metrics.
    kBackward,
    kPhases
  };
  // Since Start().
  const Flops& flops(Phase phase) const;
  // Of both forward phases, by the innermost at::RecordScope::USER_SCOPE: the
  // instance whose view or loss was computed ("" outside).
  const std::map<std::string, Flops>& forward_by_scope() const;

  // Bytes of live tensors: now, at most since Start(), at Start(), and when the
  // first backward after it began.
  int64_t live_bytes() const;
  int64_t peak_bytes() const;
  int64_t start_bytes() const;
  int64_t backward_start_bytes() const;

  class State;  // Shared with the hooks.

 private:
  class Guard;
  std::shared_ptr<State> state_;
  std::unique_ptr<Guard> guard_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_STEP_METER_H_
