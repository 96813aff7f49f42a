// Drawing masks on a patch grid. Free of LibTorch.
#ifndef SEMVQ_OBJECTIVES_MIM_MASK_H_
#define SEMVQ_OBJECTIVES_MIM_MASK_H_

#include <cstdint>
#include <vector>

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

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_MIM_MASK_H_
