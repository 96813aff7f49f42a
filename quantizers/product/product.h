// Product quantization over any quantizer; see config.proto.
#ifndef SEMVQ_QUANTIZERS_PRODUCT_PRODUCT_H_
#define SEMVQ_QUANTIZERS_PRODUCT_PRODUCT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "quantizers/product/config.pb.h"

namespace semvq {

absl::Status ValidateProduct(const ProductConfig& config);
// The inner quantizer's codes, once for each group; `groups` times its
// dimension, where it has one of its own, or the next dimension that can be
// divided; what it needs.
Contract ProductContract(const std::string& instance,
                         const ProductConfig& config, const ContractBook& book);
// InvalidArgument unless `groups` divides the features' dimension. Modules:
// groups.0, groups.1, ...; groups.0 alone when shared.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeProduct(
    const ProductConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_PRODUCT_PRODUCT_H_
