#include "tasks/visual_entailment/visual_entailment.h"

namespace semvq {

SEMVQ_REGISTER(Task, VisualEntailmentConfig, MakeVisualEntailment,
               ValidateVisualEntailment, VisualEntailmentContract);

}  // namespace semvq
