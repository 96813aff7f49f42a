// Drawing masks on a patch grid, for every objective that hides patches.
#ifndef SEMVQ_CORE_OBJECTIVE_MASK_H_
#define SEMVQ_CORE_OBJECTIVE_MASK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/forward/batch.h"
#include "core/forward/types.h"
#include "core/random/stream.h"

namespace semvq {

// `count` distinct numbers of [0, n), ascending. count <= n.
std::vector<int64_t> RandomPositions(int64_t n, int64_t count,
                                     RandomStream& random);

// `count` positions of a height x width grid (row by row), ascending, that are
// the union of rectangles [BEiT, Algorithm 1]: each of an area drawn between
// `min_block` and what is missing, with a side ratio drawn log-uniformly from
// [1/max_aspect, max_aspect], anywhere it fits. Only the last one is cut, row
// by row, to meet the count. count <= height * width.
std::vector<int64_t> BlockwisePositions(int64_t height, int64_t width,
                                        int64_t count, int64_t min_block,
                                        double max_aspect,
                                        RandomStream& random);

struct PatchMaskOptions {
  double ratio = 0.4;      // Share of the patches that is hidden.
  bool blockwise = false;  // Else any patches.
  int64_t min_block = 16;  // As for BlockwisePositions.
  double max_aspect = 1.0;
};

// How many of `patches` a ratio hides: the nearest whole number, at least 1.
int64_t HiddenPatches(double ratio, int64_t patches);

// The same number of patches in every image, drawn by (seed, sample number,
// slot): objectives with equal options hide the same patches of an image.
ImageMask DrawPatchMask(const Batch& batch, Grid grid,
                        const PatchMaskOptions& options, uint64_t seed,
                        int slot);

// The mask that hides `positions` (int64 [B, M], ascending) of `patches`.
ImageMask MaskOfPositions(const at::Tensor& positions, int64_t patches);

// Stream of an image's draws, for strategies beside the two above.
RandomStream PatchMaskStream(uint64_t seed, int64_t sample_number, int slot);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_MASK_H_
