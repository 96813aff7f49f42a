#include "tasks/nlvr2/nlvr2.h"

namespace semvq {

SEMVQ_REGISTER(Task, Nlvr2Config, MakeNlvr2, ValidateNlvr2, Nlvr2Contract);

}  // namespace semvq
