#include "core/plugin/registry.h"
#include "encoders/resnet/config.pb.h"
#include "encoders/resnet/resnet.h"

namespace semvq {

SEMVQ_REGISTER(ImageEncoder, ResnetConfig, MakeResnet, ValidateResnet,
               ResnetContract);

}  // namespace semvq
