#include "quantizers/residual/residual.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, ResidualConfig, MakeResidual, ValidateResidual,
               ResidualContract);

}  // namespace semvq
