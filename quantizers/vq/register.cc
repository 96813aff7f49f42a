#include "quantizers/vq/vq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, VqConfig, MakeVq, ValidateVq, VqContract);

}  // namespace semvq
