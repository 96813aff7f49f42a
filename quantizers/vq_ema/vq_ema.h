// VQ with a codebook of exponential moving averages; see config.proto.
#ifndef SEMVQ_QUANTIZERS_VQ_EMA_VQ_EMA_H_
#define SEMVQ_QUANTIZERS_VQ_EMA_VQ_EMA_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/vq_ema/config.pb.h"

namespace semvq {

absl::Status ValidateVqEma(const VqEmaConfig& config);
Contract VqEmaContract(const std::string& instance, const VqEmaConfig& config,
                       const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Buffers: codebook [K, D], ema_count [K], ema_sum [K, D] and those of
// CodebookQuantizer; the state of a run is in them alone.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeVqEma(
    const VqEmaConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_VQ_EMA_VQ_EMA_H_
