#include "quantizers/lfq/lfq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, LfqConfig, MakeLfq, ValidateLfq, LfqContract);

}  // namespace semvq
