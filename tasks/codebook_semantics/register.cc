#include "tasks/codebook_semantics/codebook_semantics.h"

namespace semvq {

SEMVQ_REGISTER(Task, CodebookSemanticsConfig, MakeCodebookSemantics,
               ValidateCodebookSemantics, CodebookSemanticsContract);

}  // namespace semvq
