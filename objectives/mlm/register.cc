#include "core/plugin/registry.h"
#include "objectives/mlm/config.pb.h"
#include "objectives/mlm/mlm.h"

namespace semvq {

SEMVQ_REGISTER(Objective, MlmConfig, MakeMlm, ValidateMlm, MlmContract);

}  // namespace semvq
