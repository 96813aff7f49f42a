#include "core/plugin/registry.h"
#include "data/sources/vqa_v2/vqa_v2.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, VqaV2Config, MakeVqaV2, ValidateVqaV2,
               VqaV2Contract);

}  // namespace semvq
