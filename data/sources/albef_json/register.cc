#include "core/plugin/registry.h"
#include "data/sources/albef_json/albef_json.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, AlbefJsonConfig, MakeAlbefJson, ValidateAlbefJson,
               AlbefJsonContract);

}  // namespace semvq
