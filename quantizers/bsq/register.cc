#include "quantizers/bsq/bsq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, BsqConfig, MakeBsq, ValidateBsq, BsqContract);

}  // namespace semvq
