#include "core/plugin/registry.h"
#include "data/sources/nlvr2_jsonl/nlvr2_jsonl.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, Nlvr2JsonlConfig, MakeNlvr2Jsonl, ValidateNlvr2Jsonl,
               Nlvr2JsonlContract);

}  // namespace semvq
