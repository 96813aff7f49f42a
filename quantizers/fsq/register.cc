#include "quantizers/fsq/fsq.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, FsqConfig, MakeFsq, ValidateFsq, FsqContract);

}  // namespace semvq
