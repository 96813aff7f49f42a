#include "core/plugin/registry.h"
#include "data/sources/webdataset/webdataset.h"

namespace semvq {

SEMVQ_REGISTER(DataSource, WebDatasetConfig, MakeWebDataset, ValidateWebDataset,
               WebDatasetContract);

}  // namespace semvq
