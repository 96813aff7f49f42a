#include "objectives/mim/mask.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace semvq {
namespace {

// Rectangles that add nothing (too large, or all hidden already) are drawn
// again; after so many in a row the rest is filled with single patches.
constexpr int kMaxAttempts = 100;

}  // namespace

std::vector<int64_t> RandomPositions(int64_t n, int64_t count,
                                     RandomStream& random) {
  std::vector<int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  // The first `count` places of a Fisher-Yates shuffle.
  for (int64_t i = 0; i < count; ++i) {
    std::swap(positions[i], positions[i + random.Below(n - i)]);
  }
  positions.resize(count);
  std::sort(positions.begin(), positions.end());
  return positions;
}

std::vector<int64_t> BlockwisePositions(int64_t height, int64_t width,
                                        int64_t count, int64_t min_block,
                                        double max_aspect,
                                        RandomStream& random) {
  std::vector<bool> hidden(height * width, false);
  int64_t missing = count;
  const double log_aspect = std::log(max_aspect);
  for (int attempt = 0; missing > 0 && attempt < kMaxAttempts; ++attempt) {
    const double area =
        random.Uniform(static_cast<double>(std::min(min_block, missing)),
                       static_cast<double>(missing));
    const double aspect = std::exp(random.Uniform(-log_aspect, log_aspect));
    const int64_t h =
        std::max<int64_t>(1, std::llround(std::sqrt(area * aspect)));
    const int64_t w =
        std::max<int64_t>(1, std::llround(std::sqrt(area / aspect)));
    if (h > height || w > width) continue;
    const int64_t top = random.Below(height - h + 1);
    const int64_t left = random.Below(width - w + 1);
    for (int64_t y = top; y < top + h; ++y) {
      for (int64_t x = left; x < left + w && missing > 0; ++x) {
        if (hidden[y * width + x]) continue;
        hidden[y * width + x] = true;
        --missing;
        attempt = -1;
      }
    }
  }
  std::vector<int64_t> positions, visible;
  for (int64_t i = 0; i < height * width; ++i) {
    (hidden[i] ? positions : visible).push_back(i);
  }
  if (missing > 0) {
    for (int64_t i : RandomPositions(static_cast<int64_t>(visible.size()),
                                     missing, random)) {
      positions.push_back(visible[i]);
    }
    std::sort(positions.begin(), positions.end());
  }
  return positions;
}

}  // namespace semvq
