// Binary spherical quantization; see config.proto.
#ifndef SEMVQ_QUANTIZERS_BSQ_BSQ_H_
#define SEMVQ_QUANTIZERS_BSQ_BSQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/bsq/config.pb.h"

namespace semvq {

absl::Status ValidateBsq(const BsqConfig& config);
// Provides kQuantized in `bits` dimensions.
Contract BsqContract(const std::string& instance, const BsqConfig& config,
                     const ContractBook& book);
// InvalidArgument unless the instance's kQuantized in the book has that
// dimension. Buffers: unit, history.*.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeBsq(
    const BsqConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_BSQ_BSQ_H_
