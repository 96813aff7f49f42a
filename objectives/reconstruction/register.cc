#include "core/plugin/registry.h"
#include "objectives/reconstruction/config.pb.h"
#include "objectives/reconstruction/reconstruction.h"

namespace semvq {

SEMVQ_REGISTER(Objective, ReconstructionConfig, MakeReconstruction,
               ValidateReconstruction, ReconstructionContract);

}  // namespace semvq
