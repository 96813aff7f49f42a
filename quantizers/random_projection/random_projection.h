// Codes by a frozen random projection; see config.proto. The worked example of
// docs/adding_a_quantizer.md.
#ifndef SEMVQ_QUANTIZERS_RANDOM_PROJECTION_RANDOM_PROJECTION_H_
#define SEMVQ_QUANTIZERS_RANDOM_PROJECTION_RANDOM_PROJECTION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/random_projection/config.pb.h"

namespace semvq {

absl::Status ValidateRandomProjection(const RandomProjectionConfig& config);
Contract RandomProjectionContract(const std::string& instance,
                                  const RandomProjectionConfig& config,
                                  const ContractBook& book);
// Buffers: projection [D, code_dim], codebook [K, code_dim], vectors [K, D].
absl::StatusOr<std::shared_ptr<Quantizer>> MakeRandomProjection(
    const RandomProjectionConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_RANDOM_PROJECTION_RANDOM_PROJECTION_H_
