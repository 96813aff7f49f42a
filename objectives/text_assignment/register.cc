#include "core/plugin/registry.h"
#include "objectives/text_assignment/config.pb.h"
#include "objectives/text_assignment/text_assignment.h"

namespace semvq {

SEMVQ_REGISTER(Objective, TextAssignmentConfig, MakeTextAssignment,
               ValidateTextAssignment, TextAssignmentContract);

}  // namespace semvq
