#include "quantizers/none/none.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, NoneConfig, MakeNone, ValidateNone, NoneContract);

}  // namespace semvq
