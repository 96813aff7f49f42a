// --mode=plan: does it fit, and how fast is it?
#ifndef SEMVQ_TRAINER_PLAN_H_
#define SEMVQ_TRAINER_PLAN_H_

#include <string>

#include "absl/status/statusor.h"
#include "trainer/trainer.h"

namespace semvq {

// Parameters by instance, memory by kind, then a few timed optimizer steps on
// random batches of the full size. Reads no data and writes nothing; the
// vocabulary has the size that the config asks for.
absl::StatusOr<std::string> PlanStage(const StageSetup& setup);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_PLAN_H_
