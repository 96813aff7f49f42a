#include "tasks/vqa/vqa.h"

namespace semvq {

SEMVQ_REGISTER(Task, VqaConfig, MakeVqa, ValidateVqa, VqaContract);

}  // namespace semvq
