#include "tasks/captioning/captioning.h"

namespace semvq {

SEMVQ_REGISTER(Task, CaptioningConfig, MakeCaptioning, ValidateCaptioning,
               CaptioningContract);

}  // namespace semvq
