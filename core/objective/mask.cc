#include "core/objective/mask.h"

#include <torch/types.h>

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

int64_t HiddenPatches(double ratio, int64_t patches) {
  return std::clamp<int64_t>(std::llround(ratio * static_cast<double>(patches)),
                             1, patches);
}

RandomStream PatchMaskStream(uint64_t seed, int64_t sample_number, int slot) {
  return RandomStream(StreamKey(seed, "mim", sample_number, slot));
}

ImageMask DrawPatchMask(const Batch& batch, Grid grid,
                        const PatchMaskOptions& options, uint64_t seed,
                        int slot) {
  c10::NoGradGuard no_grad;
  const int64_t patches = grid.height * grid.width;
  const int64_t count = HiddenPatches(options.ratio, patches);
  at::Tensor positions = at::empty(
      {static_cast<int64_t>(batch.sample_numbers.size()), count}, at::kLong);
  int64_t* out = positions.data_ptr<int64_t>();
  for (int64_t number : batch.sample_numbers) {
    RandomStream random = PatchMaskStream(seed, number, slot);
    const std::vector<int64_t> drawn =
        options.blockwise
            ? BlockwisePositions(grid.height, grid.width, count,
                                 options.min_block, options.max_aspect, random)
            : RandomPositions(patches, count, random);
    out = std::copy(drawn.begin(), drawn.end(), out);
  }
  return MaskOfPositions(
      positions.to(batch.images.device(), /*non_blocking=*/true), patches);
}

ImageMask MaskOfPositions(const at::Tensor& positions, int64_t patches) {
  ImageMask mask;
  mask.positions = positions;
  mask.mask = at::zeros({positions.size(0), patches},
                        positions.options().dtype(at::kBool))
                  .scatter_(1, positions, true);
  return mask;
}

}  // namespace semvq
