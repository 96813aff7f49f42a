// The data source of tar shards (see config.proto for their layout).
#ifndef SEMVQ_DATA_SOURCES_WEBDATASET_WEBDATASET_H_
#define SEMVQ_DATA_SOURCES_WEBDATASET_WEBDATASET_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/webdataset/config.pb.h"

namespace semvq {

absl::Status ValidateWebDataset(const WebDatasetConfig& config);

// Every local shard is a needed file.
Contract WebDatasetContract(const std::string& instance,
                            const WebDatasetConfig& config,
                            const ContractBook& book);

// Reads, or makes, the index of every shard. NotFound when a local shard is
// missing, DataLoss when too many are damaged: the message names the first.
// Shards that are damaged and tolerated are named on stderr; each of them adds
// a sample that is bad and says why.
absl::StatusOr<std::shared_ptr<DataSource>> MakeWebDataset(
    const WebDatasetConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_WEBDATASET_WEBDATASET_H_
