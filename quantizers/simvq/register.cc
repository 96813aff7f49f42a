#include "quantizers/simvq/simvq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, SimVqConfig, MakeSimVq, ValidateSimVq, SimVqContract);

}  // namespace semvq
