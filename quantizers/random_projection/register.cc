#include "quantizers/random_projection/random_projection.h"

namespace semvq {

SEMVQ_REGISTER(Quantizer, RandomProjectionConfig, MakeRandomProjection,
               ValidateRandomProjection, RandomProjectionContract);

}  // namespace semvq
