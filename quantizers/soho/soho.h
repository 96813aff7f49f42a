// SOHO's visual dictionary: the averages are updated, then looked up; see
// config.proto.
#ifndef SEMVQ_QUANTIZERS_SOHO_SOHO_H_
#define SEMVQ_QUANTIZERS_SOHO_SOHO_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/soho/config.pb.h"

namespace semvq {

absl::Status ValidateSoho(const SohoConfig& config);
Contract SohoContract(const std::string& instance, const SohoConfig& config,
                      const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Buffers: codebook [K, D], ema_count [K], ema_sum [K, D] and those of
// CodebookQuantizer.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeSoho(
    const SohoConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_SOHO_SOHO_H_
