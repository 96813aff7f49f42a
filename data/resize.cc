#include <algorithm>
#include <cmath>
#include <vector>

#include "data/pixel_kernels.h"
#include "data/recycled_memory.h"
#include "data/transforms.h"

// Pillow's resampling: one pass a direction, horizontal first, each with
// weights in fixed point, its result rounded and clipped to grey levels.
// Between the passes there are grey levels, too; a resize without that
// rounding, or with coarser weights as ATen's for uint8, is off by up to two
// levels.

namespace semvq {
namespace {

// Keys' cubic convolution with a = -1/2.
double Cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

ResizeTaps MakeTaps(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);  // Antialiasing.
  const double support = 2 * stretch;
  ResizeTaps taps;
  taps.inputs = in;
  const int64_t most = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
  taps.stride = (most + 3) / 4 * 4;
  taps.ranges.resize(out);
  taps.weights.resize(out * taps.stride);
  std::vector<double> exact(taps.stride);
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first =
        std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t end =
        std::min<int64_t>(in, static_cast<int64_t>(center + support + 0.5));
    const double inverse = 1.0 / stretch;
    double sum = 0;
    for (int64_t k = 0; k < end - first; ++k) {
      exact[k] =
          Cubic((static_cast<double>(k + first) - center + 0.5) * inverse);
      sum += exact[k];
    }
    taps.ranges[i] = {first, end - first};
    for (int64_t k = 0; k < end - first; ++k) {
      const double weight = (sum != 0 ? exact[k] / sum : exact[k]) *
                            static_cast<double>(1 << kResizeWeightBits);
      taps.weights[i * taps.stride + k] =
          static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }
  return taps;
}

}  // namespace

at::Tensor ResizeBicubic(const at::Tensor& image, int64_t height,
                         int64_t width) {
  // A crop's rows are dense, though it is not.
  at::Tensor now =
      image.stride(2) == 1 && image.stride(1) == 3 ? image : image.contiguous();
  if (now.size(1) != width) {
    at::Tensor out = LendPixels(now.size(0), width);
    BestPixelKernels().resize_rows(now.const_data_ptr<uint8_t>(), now.stride(0),
                                   now.size(0), MakeTaps(now.size(1), width),
                                   out.mutable_data_ptr<uint8_t>());
    now = out;
  }
  if (now.size(0) != height) {
    at::Tensor out = LendPixels(height, width);
    BestPixelKernels().resize_columns(
        now.const_data_ptr<uint8_t>(), now.stride(0), 3 * width,
        MakeTaps(now.size(0), height), out.mutable_data_ptr<uint8_t>());
    now = out;
  }
  return now.contiguous();
}

}  // namespace semvq
