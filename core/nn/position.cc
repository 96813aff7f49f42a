#include "core/nn/position.h"

#include <torch/types.h>

#include "core/nn/layers.h"

namespace semvq {

at::Tensor ResizePositions(const at::Tensor& table, Grid from, Grid to,
                           int64_t prefix) {
  TORCH_CHECK(
      table.dim() == 3 && table.size(1) == prefix + from.height * from.width,
      "positions ", table.sizes(), " do not fit a grid of ", from.height, " x ",
      from.width, " after ", prefix, " others");
  if (from.height == to.height && from.width == to.width) return table;
  const int64_t dim = table.size(2);
  at::Tensor grid = table.narrow(1, prefix, from.height * from.width)
                        .unflatten(1, {from.height, from.width})
                        .permute({0, 3, 1, 2});
  grid = at::upsample_bicubic2d(grid, {to.height, to.width},
                                /*align_corners=*/false);
  grid = grid.permute({0, 2, 3, 1}).reshape({1, to.height * to.width, dim});
  return prefix == 0 ? grid : at::cat({table.narrow(1, 0, prefix), grid}, 1);
}

PositionEmbedding::PositionEmbedding(Grid grid, int64_t dim, int64_t prefix)
    : grid_(grid), prefix_(prefix) {
  weight = register_parameter(
      "weight",
      TruncatedNormal(at::empty({1, prefix + grid.height * grid.width, dim})));
}

}  // namespace semvq
