#include "kernels/grouped.h"

#include <ATen/ATen.h>

namespace semvq {

at::Tensor AssignNearestGrouped(const at::Tensor& features,
                                const at::Tensor& codebooks, Metric metric) {
  TORCH_CHECK(features.dim() >= 2 && codebooks.dim() == 3 &&
                  features.size(-2) == codebooks.size(0) &&
                  features.size(-1) == codebooks.size(2),
              "AssignNearestGrouped: expected features [..., G, D] and "
              "codebooks [G, K, D], got ",
              features.sizes(), " and ", codebooks.sizes());
  const int64_t groups = codebooks.size(0);
  at::Tensor codes = at::empty(features.sizes().slice(0, features.dim() - 1),
                               features.options().dtype(at::kLong));
  const at::Tensor rows = features.reshape({-1, groups, features.size(-1)});
  const at::Tensor out = codes.view({-1, groups});
  for (int64_t g = 0; g < groups; ++g) {
    out.select(1, g).copy_(
        AssignNearest(rows.select(1, g), codebooks.select(0, g), metric));
  }
  return codes;
}

at::Tensor AssignNearestBatched(const at::Tensor& features,
                                const at::Tensor& codebooks, Metric metric) {
  TORCH_CHECK(features.dim() == 3 && codebooks.dim() == 3 &&
                  features.size(0) == codebooks.size(0) &&
                  features.size(2) == codebooks.size(2),
              "AssignNearestBatched: expected features [B, N, D] and codebooks "
              "[B, K, D], got ",
              features.sizes(), " and ", codebooks.sizes());
  at::Tensor codes = at::empty({features.size(0), features.size(1)},
                               features.options().dtype(at::kLong));
  for (int64_t b = 0; b < features.size(0); ++b) {
    codes.select(0, b).copy_(
        AssignNearest(features.select(0, b), codebooks.select(0, b), metric));
  }
  return codes;
}

}  // namespace semvq
