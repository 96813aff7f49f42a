#include "core/plugin/registry.h"
#include "data/sources/mixture/mixture.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, MixtureConfig, MakeMixture, ValidateMixture,
               MixtureContract);

}  // namespace semvq
