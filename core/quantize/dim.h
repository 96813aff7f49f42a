// What a quantizer's factory takes from its context.
#ifndef SEMVQ_CORE_QUANTIZE_DIM_H_
#define SEMVQ_CORE_QUANTIZE_DIM_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/plugin/context.h"

namespace semvq {

// Dimension of the features that the quantizer `context.instance` will get;
// InvalidArgument when the book does not tell.
absl::StatusOr<int64_t> FeatureDim(const PluginContext& context);

// The contract of a quantizer with one group of codes; `exact_lookup` as in
// CodebookInfo.
Contract OneGroupContract(int64_t num_codes, bool exact_lookup = true);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_DIM_H_
