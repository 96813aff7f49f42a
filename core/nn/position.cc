#include "core/nn/position.h"

#include <torch/types.h>

#include "core/nn/layers.h"

namespace semvq {
namespace {

// Rows of a table of relative positions that have to do with [CLS].
constexpr int64_t kClsOffsets = 3;

}  // namespace

at::Tensor ResizePositions(const at::Tensor& table, Grid from, Grid to,
                           int64_t prefix, bool antialias) {
  TORCH_CHECK(
      table.dim() == 3 && table.size(1) == prefix + from.height * from.width,
      "positions ", table.sizes(), " do not fit a grid of ", from.height, " x ",
      from.width, " after ", prefix, " others");
  if (from.height == to.height && from.width == to.width) return table;
  const int64_t dim = table.size(2);
  at::Tensor grid = table.narrow(1, prefix, from.height * from.width)
                        .unflatten(1, {from.height, from.width})
                        .permute({0, 3, 1, 2});
  const int64_t size[] = {to.height, to.width};
  grid = antialias
             ? at::_upsample_bicubic2d_aa(grid, size, /*align_corners=*/false)
             : at::upsample_bicubic2d(grid, size, /*align_corners=*/false);
  grid = grid.permute({0, 2, 3, 1}).reshape({1, to.height * to.width, dim});
  return prefix == 0 ? grid : at::cat({table.narrow(1, 0, prefix), grid}, 1);
}

at::Tensor ResizeRelativePositions(const at::Tensor& table, Grid from,
                                   Grid to) {
  if (from.height == to.height && from.width == to.width) return table;
  const int64_t rows = (2 * from.height - 1) * (2 * from.width - 1);
  TORCH_CHECK(table.dim() == 2 && table.size(0) == rows + kClsOffsets,
              "relative positions ", table.sizes(), " do not fit a grid of ",
              from.height, " x ", from.width);
  const at::Tensor offsets =
      ResizePositions(table.narrow(0, 0, rows).unsqueeze(0),
                      {2 * from.height - 1, 2 * from.width - 1},
                      {2 * to.height - 1, 2 * to.width - 1}, 0);
  return at::cat({offsets.squeeze(0), table.narrow(0, rows, kClsOffsets)});
}

RelativePositionBias::RelativePositionBias(Grid grid, int64_t heads)
    : grid_(grid), heads_(heads) {
  const int64_t rows = (2 * grid.height - 1) * (2 * grid.width - 1);
  relative_position_bias_table = register_parameter(
      "relative_position_bias_table",
      TruncatedNormal(at::empty({rows + kClsOffsets, heads})));
}

at::Tensor RelativePositionBias::Forward(Grid grid) const {
  const at::Tensor table =
      ResizeRelativePositions(relative_position_bias_table, grid_, grid);
  const int64_t n = grid.height * grid.width, width = 2 * grid.width - 1;
  const at::TensorOptions options =
      at::TensorOptions(at::kLong).device(table.device());
  const at::Tensor patch = at::arange(n, options);
  const at::Tensor y = at::floor_divide(patch, grid.width);
  const at::Tensor x = at::remainder(patch, grid.width);
  const auto offset = [](const at::Tensor& at) {
    return at.unsqueeze(1) - at.unsqueeze(0);
  };
  const int64_t rows = (2 * grid.height - 1) * width;
  at::Tensor index = at::full({n + 1, n + 1}, rows, options);  // From [CLS].
  index.narrow(0, 1, n).narrow(1, 1, n).copy_(
      (offset(y) + (grid.height - 1)) * width + offset(x) + (grid.width - 1));
  index.narrow(0, 1, n).select(1, 0).fill_(rows + 1);
  index.select(0, 0).select(0, 0).fill_(rows + 2);
  return table.index_select(0, index.flatten())
      .view({n + 1, n + 1, heads_})
      .permute({2, 0, 1})
      .unsqueeze(0);
}

PositionEmbedding::PositionEmbedding(Grid grid, int64_t dim, int64_t prefix)
    : grid_(grid), prefix_(prefix) {
  weight = register_parameter(
      "weight",
      TruncatedNormal(at::empty({1, prefix + grid.height * grid.width, dim})));
}

}  // namespace semvq
