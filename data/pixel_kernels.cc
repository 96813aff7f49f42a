#include "data/pixel_kernels.h"

#include <algorithm>

namespace semvq {
namespace {

// Weighted sums start here, so that shifting rounds.
constexpr int32_t kHalf = 1 << (kResizeWeightBits - 1);

uint8_t GreyLevel(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kResizeWeightBits, 0, 255));
}

void ResizeRows(const uint8_t* in, int64_t stride, int64_t rows,
                const ResizeTaps& taps, uint8_t* out) {
  for (int64_t y = 0; y < rows; ++y, in += stride) {
    for (int64_t x = 0; x < taps.outputs(); ++x, out += 3) {
      const int32_t* weight = taps.of(x);
      const uint8_t* p = in + 3 * taps.ranges[x].first;
      int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (int64_t k = 0; k < taps.ranges[x].count; ++k, p += 3) {
        red += p[0] * weight[k];
        green += p[1] * weight[k];
        blue += p[2] * weight[k];
      }
      out[0] = GreyLevel(red);
      out[1] = GreyLevel(green);
      out[2] = GreyLevel(blue);
    }
  }
}

void ResizeColumns(const uint8_t* in, int64_t stride, int64_t width,
                   const ResizeTaps& taps, uint8_t* out) {
  std::vector<int32_t> sums(width);
  for (int64_t y = 0; y < taps.outputs(); ++y, out += width) {
    std::fill(sums.begin(), sums.end(), kHalf);
    const int32_t* weight = taps.of(y);
    for (int64_t k = 0; k < taps.ranges[y].count; ++k) {
      const uint8_t* row = in + (taps.ranges[y].first + k) * stride;
      for (int64_t i = 0; i < width; ++i) sums[i] += row[i] * weight[k];
    }
    for (int64_t i = 0; i < width; ++i) out[i] = GreyLevel(sums[i]);
  }
}

void NormalizeRow(const uint8_t* rgb, int64_t pixels, bool flip,
                  const float scale[3], const float shift[3], float* red,
                  int64_t plane) {
  const int64_t step = flip ? -3 : 3;
  const uint8_t* first = rgb + (flip ? 3 * (pixels - 1) : 0);
  for (int c = 0; c < 3; ++c) {
    float* to = red + c * plane;
    const uint8_t* p = first + c;
    for (int64_t x = 0; x < pixels; ++x)
      to[x] = static_cast<float>(p[x * step]) * scale[c] + shift[c];
  }
}

}  // namespace

const PixelKernels& GenericPixelKernels() {
  static constexpr PixelKernels kernels = {ResizeRows, ResizeColumns,
                                           NormalizeRow};
  return kernels;
}

const PixelKernels& BestPixelKernels() {
  static const PixelKernels& best = Avx2PixelKernels() != nullptr
                                        ? *Avx2PixelKernels()
                                        : GenericPixelKernels();
  return best;
}

}  // namespace semvq
