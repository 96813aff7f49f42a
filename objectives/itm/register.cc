#include "core/plugin/registry.h"
#include "objectives/itm/config.pb.h"
#include "objectives/itm/itm.h"

namespace semvq {

SEMVQ_REGISTER(Objective, ItmConfig, MakeItm, ValidateItm, ItmContract);

}  // namespace semvq
