#include "quantizers/norm_ema/norm_ema.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, NormEmaConfig, MakeNormEma, ValidateNormEma,
               NormEmaContract);

}  // namespace semvq
