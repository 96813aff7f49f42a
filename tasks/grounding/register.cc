#include "tasks/grounding/grounding.h"

namespace semvq {

SEMVQ_REGISTER(Task, GroundingConfig, MakeGrounding, ValidateGrounding,
               GroundingContract);

}  // namespace semvq
