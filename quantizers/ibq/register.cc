#include "quantizers/ibq/ibq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, IbqConfig, MakeIbq, ValidateIbq, IbqContract);

}  // namespace semvq
