#include "tasks/mim_accuracy/mim_accuracy.h"

namespace semvq {

SEMVQ_REGISTER(Task, MimAccuracyConfig, MakeMimAccuracy, ValidateMimAccuracy,
               MimAccuracyContract);

}  // namespace semvq
