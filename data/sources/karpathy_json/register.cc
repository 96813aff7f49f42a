#include "core/plugin/registry.h"
#include "data/sources/karpathy_json/karpathy_json.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, KarpathyJsonConfig, MakeKarpathyJson,
               ValidateKarpathyJson, KarpathyJsonContract);

}  // namespace semvq
