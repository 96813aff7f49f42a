// Learned position embeddings on a patch grid.
#ifndef SEMVQ_CORE_NN_POSITION_H_
#define SEMVQ_CORE_NN_POSITION_H_

#include <torch/nn/module.h>

#include <cstdint>

#include "core/forward/types.h"

namespace semvq {

// Resizes a table of 2-D positions: [1, prefix + from.height * from.width, D]
// to [1, prefix + to.height * to.width, D], bicubic without aligned corners
// [DeiT, ALBEF]. The first `prefix` rows ([CLS]) are kept. Returns `table`
// itself when the grids are equal. Differentiable.
at::Tensor ResizePositions(const at::Tensor& table, Grid from, Grid to,
                           int64_t prefix);

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

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_POSITION_H_
