// Learned positions on a patch grid: absolute ones, and relative ones as biases
// of attention.
#ifndef SEMVQ_CORE_NN_POSITION_H_
#define SEMVQ_CORE_NN_POSITION_H_

#include <torch/nn/module.h>

#include <cstdint>

#include "core/forward/types.h"

namespace semvq {

// Resizes a table of 2-D positions: [1, prefix + from.height * from.width, D]
// to [1, prefix + to.height * to.width, D], bicubic without aligned corners
// [DeiT, ALBEF]. The first `prefix` rows ([CLS]) are kept. Returns `table`
// itself when the grids are equal. Differentiable. With `antialias` as Pillow
// and timm resize: another cubic kernel (-0.5, not -0.75), widened when the
// grid shrinks.
at::Tensor ResizePositions(const at::Tensor& table, Grid from, Grid to,
                           int64_t prefix, bool antialias = false);

// Resizes a table of relative positions, [(2 from.height - 1) * (2 from.width -
// 1) + 3, heads], to that of another grid; bicubic, the last 3 rows are kept.
at::Tensor ResizeRelativePositions(const at::Tensor& table, Grid from, Grid to);

// One vector per grid position, row by row, after `prefix` vectors of their
// own ([CLS]).
class PositionEmbedding : public torch::nn::Module {
 public:
  PositionEmbedding(Grid grid, int64_t dim, int64_t prefix = 0);
  // [1, prefix + grid.height * grid.width, dim]; resized when `grid` is not the
  // one it was made for.
  at::Tensor Forward(Grid grid) const {
    return ResizePositions(weight, grid_, grid, prefix_);
  }

  at::Tensor weight;  // [1, prefix + height * width, dim]

 private:
  Grid grid_;
  int64_t prefix_;
};

// What attention adds to its scores for how two patches lie to each other, by
// head [BEiT, Bao et al. 2022]. One row of the table an offset (dy, dx), row by
// row from (1 - height, 1 - width) on, query minus key; then [CLS] to a patch,
// a patch to [CLS], [CLS] to itself.
class RelativePositionBias : public torch::nn::Module {
 public:
  RelativePositionBias(Grid grid, int64_t heads);
  // [1, heads, 1 + N, 1 + N] for the N patches of `grid`, [CLS] first; resized
  // when `grid` is not the one it was made for.
  at::Tensor Forward(Grid grid) const;

  at::Tensor relative_position_bias_table;

 private:
  Grid grid_;
  int64_t heads_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_POSITION_H_
