// Index backpropagation: a gradient to every code through the softmax; see
// config.proto.
#ifndef SEMVQ_QUANTIZERS_IBQ_IBQ_H_
#define SEMVQ_QUANTIZERS_IBQ_IBQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/ibq/config.pb.h"

namespace semvq {

absl::Status ValidateIbq(const IbqConfig& config);
Contract IbqContract(const std::string& instance, const IbqConfig& config,
                     const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Parameter: codebook [K, D]; buffers: those of CodebookQuantizer.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeIbq(
    const IbqConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_IBQ_IBQ_H_
