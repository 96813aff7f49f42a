// Lookup-free quantization; see config.proto.
#ifndef SEMVQ_QUANTIZERS_LFQ_LFQ_H_
#define SEMVQ_QUANTIZERS_LFQ_LFQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/lfq/config.pb.h"

namespace semvq {

absl::Status ValidateLfq(const LfqConfig& config);
// Provides kQuantized in `bits` dimensions.
Contract LfqContract(const std::string& instance, const LfqConfig& config,
                     const ContractBook& book);
// InvalidArgument unless the instance's kQuantized in the book has that
// dimension. Buffers: unit, history.*.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeLfq(
    const LfqConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_LFQ_LFQ_H_
