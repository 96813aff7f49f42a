// Finite scalar quantization; see config.proto.
#ifndef SEMVQ_QUANTIZERS_FSQ_FSQ_H_
#define SEMVQ_QUANTIZERS_FSQ_FSQ_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/fsq/config.pb.h"

namespace semvq {

absl::Status ValidateFsq(const FsqConfig& config);
// Provides kQuantized in as many dimensions as there are levels.
Contract FsqContract(const std::string& instance, const FsqConfig& config,
                     const ContractBook& book);
// InvalidArgument unless the instance's kQuantized in the book has that
// dimension. Buffers: levels [D], unit, history.*.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeFsq(
    const FsqConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_FSQ_FSQ_H_
