// VQ with a codebook learned by gradient; see config.proto.
#ifndef SEMVQ_QUANTIZERS_VQ_VQ_H_
#define SEMVQ_QUANTIZERS_VQ_VQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/vq/config.pb.h"

namespace semvq {

absl::Status ValidateVq(const VqConfig& config);
Contract VqContract(const std::string& instance, const VqConfig& config,
                    const ContractBook& book);
// The codebook's dimension is that of the instance's kQuantized in the book.
// Parameter: codebook [K, D], with COSINE of any length; buffers: those of
// CodebookQuantizer.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeVq(const VqConfig& config,
                                                  const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_VQ_VQ_H_
