// The data source of several weighted sources (see config.proto).
#ifndef SEMVQ_DATA_SOURCES_MIXTURE_MIXTURE_H_
#define SEMVQ_DATA_SOURCES_MIXTURE_MIXTURE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/mixture/config.pb.h"

namespace semvq {

absl::Status ValidateMixture(const MixtureConfig& config);

// The needs of all sources.
Contract MixtureContract(const std::string& instance,
                         const MixtureConfig& config, const ContractBook& book);

// Makes all sources; an error starts with "sources[1]". Image ids of different
// sources are never equal: "1/..." are those of the second.
absl::StatusOr<std::shared_ptr<DataSource>> MakeMixture(
    const MixtureConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_MIXTURE_MIXTURE_H_
