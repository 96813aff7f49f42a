#include "core/plugin/registry.h"
#include "data/sources/snli_ve_jsonl/snli_ve_jsonl.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, SnliVeJsonlConfig, MakeSnliVeJsonl,
               ValidateSnliVeJsonl, SnliVeJsonlContract);

}  // namespace semvq
