// VQ whose codes are one linear map of frozen random vectors; see config.proto.
#ifndef SEMVQ_QUANTIZERS_SIMVQ_SIMVQ_H_
#define SEMVQ_QUANTIZERS_SIMVQ_SIMVQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/simvq/config.pb.h"

namespace semvq {

absl::Status ValidateSimVq(const SimVqConfig& config);
Contract SimVqContract(const std::string& instance, const SimVqConfig& config,
                       const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Parameter: transform [D, D]; buffers: frozen [K, D] and those of
// CodebookQuantizer.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeSimVq(
    const SimVqConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_SIMVQ_SIMVQ_H_
