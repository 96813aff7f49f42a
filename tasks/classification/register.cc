#include "tasks/classification/classification.h"

namespace semvq {

SEMVQ_REGISTER(Task, ClassificationConfig, MakeClassification,
               ValidateClassification, ClassificationContract);

}  // namespace semvq
