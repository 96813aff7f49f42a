// Codes drawn from a softmax by Gumbel noise; see config.proto.
#ifndef SEMVQ_QUANTIZERS_GUMBEL_GUMBEL_H_
#define SEMVQ_QUANTIZERS_GUMBEL_GUMBEL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/gumbel/config.pb.h"

namespace semvq {

absl::Status ValidateGumbel(const GumbelConfig& config);
Contract GumbelContract(const std::string& instance, const GumbelConfig& config,
                        const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Noise is keyed by (seed, "<instance>/gumbel", the image's draw key, position
// and code). Parameters: logits.{weight,bias}, codebook [K, D]. Buffers:
// CodebookQuantizer's.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeGumbel(
    const GumbelConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_GUMBEL_GUMBEL_H_
