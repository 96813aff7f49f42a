// Features as they are, without codes; see config.proto.
#ifndef SEMVQ_QUANTIZERS_NONE_NONE_H_
#define SEMVQ_QUANTIZERS_NONE_NONE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/none/config.pb.h"

namespace semvq {

absl::Status ValidateNone(const NoneConfig& config);
// No codes.
Contract NoneContract(const std::string& instance, const NoneConfig& config,
                      const ContractBook& book);
// Lookup throws c10::Error: there is nothing to look up.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeNone(
    const NoneConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_NONE_NONE_H_
