// Residual quantization over any quantizer; see config.proto.
#ifndef SEMVQ_QUANTIZERS_RESIDUAL_RESIDUAL_H_
#define SEMVQ_QUANTIZERS_RESIDUAL_RESIDUAL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/residual/config.pb.h"

namespace semvq {

absl::Status ValidateResidual(const ResidualConfig& config);
// The inner quantizer's codes, once for each level; its dimension, where it has
// one of its own; what it needs.
Contract ResidualContract(const std::string& instance,
                          const ResidualConfig& config,
                          const ContractBook& book);
// Modules: levels.0, levels.1, ...; levels.0 alone when shared. Lookup takes -1
// for levels beyond the first: they add nothing.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeResidual(
    const ResidualConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_RESIDUAL_RESIDUAL_H_
