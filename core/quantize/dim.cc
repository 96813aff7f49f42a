#include "core/quantize/dim.h"

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"

namespace semvq {

absl::StatusOr<int64_t> FeatureDim(const PluginContext& context) {
  const int64_t dim = context.book == nullptr
                          ? 0
                          : context.book->Dim(context.instance, kQuantized);
  if (dim >= 1) return dim;
  return absl::InvalidArgumentError(
      absl::StrCat("the dimension of the features of quantizer \"",
                   context.instance, "\" is not known"));
}

Contract OneGroupContract(int64_t num_codes, bool exact_lookup) {
  Contract contract;
  contract.codes.exact_lookup = exact_lookup;
  contract.codes.codes_per_group = {num_codes};
  return contract;
}

}  // namespace semvq
