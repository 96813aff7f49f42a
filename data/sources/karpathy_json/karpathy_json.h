// The data source of Karpathy's dataset_*.json (see config.proto for the
// format).
#ifndef SEMVQ_DATA_SOURCES_KARPATHY_JSON_KARPATHY_JSON_H_
#define SEMVQ_DATA_SOURCES_KARPATHY_JSON_KARPATHY_JSON_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/karpathy_json/config.pb.h"

namespace semvq {

absl::Status ValidateKarpathyJson(const KarpathyJsonConfig& config);

Contract KarpathyJsonContract(const std::string& instance,
                              const KarpathyJsonConfig& config,
                              const ContractBook& book);

// Reads all files. NotFound when one is missing; InvalidArgument when one is in
// another format (the message names the one it looks like), holds none of the
// splits, or an image twice. An image that cannot be used stays in the list,
// and Read() of it returns the reason.
absl::StatusOr<std::shared_ptr<DataSource>> MakeKarpathyJson(
    const KarpathyJsonConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_KARPATHY_JSON_KARPATHY_JSON_H_
