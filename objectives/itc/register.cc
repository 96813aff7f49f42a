#include "core/plugin/registry.h"
#include "objectives/itc/config.pb.h"
#include "objectives/itc/itc.h"

namespace semvq {

SEMVQ_REGISTER(Objective, ItcConfig, MakeItc, ValidateItc, ItcContract);

}  // namespace semvq
