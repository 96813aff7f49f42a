#include "quantizers/vq_ema/vq_ema.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, VqEmaConfig, MakeVqEma, ValidateVqEma, VqEmaContract);

}  // namespace semvq
