// The inner loops of resizing and normalising, in plain C++ and for AVX2. Both
// give the same bits. Only for resize.cc and transforms.cc.
#ifndef SEMVQ_DATA_PIXEL_KERNELS_H_
#define SEMVQ_DATA_PIXEL_KERNELS_H_

#include <cstdint>
#include <vector>

namespace semvq {

// What each output position of a resize reads: `count` inputs from `first` on,
// with weights in fixed point that sum to 2^kResizeWeightBits (but for
// rounding), at `weights` + position * `stride`; those behind `count` are 0.
// `stride` is a multiple of 4. Weights are below 2^26.
struct ResizeTaps {
  struct Range {
    int64_t first, count;
  };
  std::vector<Range> ranges;
  std::vector<int32_t> weights;
  int64_t stride = 0;
  int64_t inputs = 0;

  const int32_t* of(int64_t position) const {
    return weights.data() + position * stride;
  }
  int64_t outputs() const { return static_cast<int64_t>(ranges.size()); }
};
constexpr int kResizeWeightBits = 22;

struct PixelKernels {
  // RGB rows of taps.inputs pixels, `stride` bytes apart, to dense rows of
  // taps.outputs() pixels: weighted sums, rounded and clipped to grey levels.
  void (*resize_rows)(const uint8_t* in, int64_t stride, int64_t rows,
                      const ResizeTaps& taps, uint8_t* out);
  // taps.inputs rows of `width` bytes to taps.outputs() dense ones.
  void (*resize_columns)(const uint8_t* in, int64_t stride, int64_t width,
                         const ResizeTaps& taps, uint8_t* out);
  // A row of RGB pixels to red[x] = value * scale[0] + shift[0] and so on, the
  // planes `plane` floats apart; `flip`: from right to left.
  void (*normalize_row)(const uint8_t* rgb, int64_t pixels, bool flip,
                        const float scale[3], const float shift[3], float* red,
                        int64_t plane);
};

const PixelKernels& GenericPixelKernels();
// Null on a processor without AVX2.
const PixelKernels* Avx2PixelKernels();
// The fastest that this processor runs.
const PixelKernels& BestPixelKernels();

}  // namespace semvq

#endif  // SEMVQ_DATA_PIXEL_KERNELS_H_
