#include "core/plugin/registry.h"
#include "encoders/vit/config.pb.h"
#include "encoders/vit/vit.h"

namespace semvq {

SEMVQ_REGISTER(ImageEncoder, VitConfig, MakeVit, ValidateVit, VitContract);

}  // namespace semvq
