// VQ on the unit sphere with moving averages of directions; see config.proto.
#ifndef SEMVQ_QUANTIZERS_NORM_EMA_NORM_EMA_H_
#define SEMVQ_QUANTIZERS_NORM_EMA_NORM_EMA_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/norm_ema/config.pb.h"

namespace semvq {

absl::Status ValidateNormEma(const NormEmaConfig& config);
Contract NormEmaContract(const std::string& instance,
                         const NormEmaConfig& config, const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Buffers: codebook [K, D] of length 1, and those of CodebookQuantizer.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeNormEma(
    const NormEmaConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_NORM_EMA_NORM_EMA_H_
