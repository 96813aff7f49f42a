#include "core/plugin/registry.h"
#include "encoders/cross_fusion/config.pb.h"
#include "encoders/cross_fusion/cross_fusion.h"

namespace semvq {

SEMVQ_REGISTER(FusionEncoder, CrossFusionConfig, MakeCrossFusion,
               ValidateCrossFusion, CrossFusionContract);

}  // namespace semvq
