#include "core/plugin/registry.h"
#include "objectives/mim/config.pb.h"
#include "objectives/mim/mim.h"

namespace semvq {

SEMVQ_REGISTER(Objective, MimConfig, MakeMim, ValidateMim, MimContract);

}  // namespace semvq
