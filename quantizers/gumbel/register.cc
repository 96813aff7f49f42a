#include "quantizers/gumbel/gumbel.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, GumbelConfig, MakeGumbel, ValidateGumbel,
               GumbelContract);

}  // namespace semvq
