#include "core/plugin/registry.h"
#include "data/sources/coco_captions/coco_captions.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, CocoCaptionsConfig, MakeCocoCaptions,
               ValidateCocoCaptions, CocoCaptionsContract);

}  // namespace semvq
