// --mode=plan: does it fit, how fast is it here, and how long would it take
// elsewhere?
#ifndef SEMVQ_TRAINER_PLAN_H_
#define SEMVQ_TRAINER_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/trainer.h"

namespace semvq {

// What the tensors of a stage take, in bytes, when it trains on a batch. The
// activations are a line through two measured batches.
struct MemoryPlan {
  double weights = 0, gradients = 0, optimizer = 0;
  double teacher = 0;  // Its parameters and buffers.
  double buffers = 0;  // Codebooks, queues.
  double activations_fixed = 0, activations_per_image = 0;

  double Total(double images) const {
    return weights + gradients + optimizer + teacher + buffers +
           activations_fixed + activations_per_image * images;
  }
  // The most images whose total is at most `bytes`; 0: not even one.
  int64_t LargestBatch(double bytes) const;
};

// Measured with three optimizer steps on two to four random images of the
// stage's sizes, by a trainer of their own. `setup` has its tokenizer.
absl::StatusOr<MemoryPlan> MeasureMemory(const StageSetup& setup);

// As a table, for the stage's batch and precision.
std::string FormatMemory(const MemoryPlan& memory, const Experiment& stage);

// Bytes that the kernel would give without swapping; 0 when it does not say.
double AvailableMemory();

// Days that `samples` of `flops` each take on `gpus` accelerators with a peak
// of `peak` operations a second, of which the share `utilisation` is reached.
double TrainingDays(double samples, double flops, double gpus, double peak,
                    double utilisation);

// Of one stage, as text: parameters and counted operations by instance, memory
// by kind for the stage's batch and precision, days on published accelerators,
// then timed optimizer steps on random batches of the full size, with the
// stage's batch or the largest that fits this machine. Writes nothing; reads no
// data but the number of samples, where the files are there. The vocabulary has
// the size that the config asks for.
absl::StatusOr<std::string> PlanStage(const StageSetup& setup);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_PLAN_H_
