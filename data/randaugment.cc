#include "data/randaugment.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

namespace semvq {
namespace {

constexpr double kMaxMagnitude = 10;
using Table = std::array<uint8_t, 256>;
using Histogram = std::array<int64_t, 256>;

// Pillow's conversion of a number to a grey level: clip, then cut. It blends in
// single precision, which shows where the exact value is an integer.
uint8_t Cut(double v) {
  return static_cast<uint8_t>(std::clamp(v, 0.0, 255.0));
}

std::array<Histogram, 3> Histograms(const at::Tensor& image) {
  std::array<Histogram, 3> counts{};
  const uint8_t* p = image.const_data_ptr<uint8_t>();
  for (const uint8_t* end = p + image.numel(); p != end; p += 3) {
    for (int c = 0; c < 3; ++c) ++counts[c][p[c]];
  }
  return counts;
}

Table IdentityTable() {
  Table table;
  for (int v = 0; v < 256; ++v) table[v] = static_cast<uint8_t>(v);
  return table;
}

// Stretches the channel's range to 0..255.
Table AutoContrastTable(const Histogram& counts) {
  int low = 0, high = 255;
  while (low < 255 && counts[low] == 0) ++low;
  while (high > 0 && counts[high] == 0) --high;
  if (high <= low) return IdentityTable();
  Table table;
  const double scale = 255.0 / (high - low);
  for (int v = 0; v < 256; ++v) table[v] = Cut(v * scale - low * scale);
  return table;
}

// Makes the channel's histogram as flat as a table can (Pillow's rule: the last
// occupied bin does not count).
Table EqualizeTable(const Histogram& counts) {
  int64_t total = 0, last = 0, occupied = 0;
  for (int64_t n : counts) {
    total += n;
    if (n != 0) last = n, ++occupied;
  }
  const int64_t step = (total - last) / 255;
  if (occupied <= 1 || step == 0) return IdentityTable();
  Table table;
  int64_t below = step / 2;
  for (int v = 0; v < 256; ++v) {
    table[v] = static_cast<uint8_t>(std::min<int64_t>(below / step, 255));
    below += counts[v];
  }
  return table;
}

at::Tensor ApplyTables(const at::Tensor& image,
                       const std::array<Table, 3>& tables) {
  at::Tensor out = at::empty_like(image);
  const uint8_t* p = image.const_data_ptr<uint8_t>();
  uint8_t* q = out.data_ptr<uint8_t>();
  for (const uint8_t* end = p + image.numel(); p != end; p += 3, q += 3) {
    for (int c = 0; c < 3; ++c) q[c] = tables[c][p[c]];
  }
  return out;
}

// Away from the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13; the border stays.
at::Tensor Sharpen(const at::Tensor& image, float factor) {
  at::Tensor out = image.clone();
  const int64_t height = image.size(0), width = image.size(1),
                stride = width * 3;
  for (int64_t y = 1; y + 1 < height; ++y) {
    const uint8_t* p = image.const_data_ptr<uint8_t>() + y * stride;
    uint8_t* q = out.data_ptr<uint8_t>() + y * stride;
    for (int64_t x = 3; x < stride - 3; ++x) {
      int sum = 4 * p[x];
      for (int64_t row : {-stride, int64_t{0}, stride})
        sum += p[x + row - 3] + p[x + row] + p[x + row + 3];
      const int smooth = (2 * sum + 13) / 26;  // Rounded sum / 13.
      q[x] = Cut(static_cast<float>(smooth) +
                 factor * static_cast<float>(p[x] - smooth));
    }
  }
  return out;
}

at::Tensor Warp(const at::Tensor& image, const cv::Matx23d& matrix) {
  at::Tensor out = at::empty_like(image);
  const int height = static_cast<int>(image.size(0)),
            width = static_cast<int>(image.size(1));
  const cv::Mat from(height, width, CV_8UC3,
                     const_cast<uint8_t*>(image.const_data_ptr<uint8_t>()));
  cv::Mat to(height, width, CV_8UC3, out.data_ptr<uint8_t>());
  cv::warpAffine(from, to, matrix, to.size(), cv::INTER_LINEAR,
                 cv::BORDER_CONSTANT, cv::Scalar::all(128));
  return out;
}

}  // namespace

at::Tensor ApplyAugmentOp(const at::Tensor& image, AugmentOp op, double value) {
  const double width = static_cast<double>(image.size(1)),
               height = static_cast<double>(image.size(0));
  switch (op) {
    case AugmentOp::kIdentity:
      return image;
    case AugmentOp::kAutoContrast:
    case AugmentOp::kEqualize: {
      const std::array<Histogram, 3> counts = Histograms(image);
      std::array<Table, 3> tables;
      for (int c = 0; c < 3; ++c) {
        tables[c] = op == AugmentOp::kEqualize ? EqualizeTable(counts[c])
                                               : AutoContrastTable(counts[c]);
      }
      return ApplyTables(image, tables);
    }
    case AugmentOp::kBrightness: {
      Table table;
      for (int v = 0; v < 256; ++v) {
        table[v] = Cut(static_cast<float>(v) * static_cast<float>(value));
      }
      return ApplyTables(image, {table, table, table});
    }
    case AugmentOp::kSharpness:
      return Sharpen(image, static_cast<float>(value));
    case AugmentOp::kShearX:
      return Warp(image, {1, value, 0, 0, 1, 0});
    case AugmentOp::kShearY:
      return Warp(image, {1, 0, 0, value, 1, 0});
    case AugmentOp::kTranslateX:
      return Warp(image, {1, 0, -value, 0, 1, 0});
    case AugmentOp::kTranslateY:
      return Warp(image, {1, 0, 0, 0, 1, -value});
    case AugmentOp::kRotate:
      return Warp(image, cv::Matx23d(cv::getRotationMatrix2D(
                             cv::Point2f(static_cast<float>(width / 2),
                                         static_cast<float>(height / 2)),
                             value, 1.0)));
  }
  return image;
}

at::Tensor RandAugment(at::Tensor image, int ops, int magnitude,
                       RandomStream* random) {
  const double m = magnitude / kMaxMagnitude;
  for (int i = 0; i < ops; ++i) {
    // Three draws whatever the operation is, so that one choice does not shift
    // the others.
    const auto op = static_cast<AugmentOp>(random->Below(kNumAugmentOps));
    const bool apply = random->Bernoulli(0.5);
    const double sign = random->Bernoulli(0.5) ? -1.0 : 1.0;
    if (!apply) continue;
    double value = 0.1 + 1.8 * m;
    if (op == AugmentOp::kShearX || op == AugmentOp::kShearY)
      value = sign * 0.3 * m;
    if (op == AugmentOp::kTranslateX)
      value = sign * 10 * m * static_cast<double>(image.size(1)) / 256;
    if (op == AugmentOp::kTranslateY)
      value = sign * 10 * m * static_cast<double>(image.size(0)) / 256;
    if (op == AugmentOp::kRotate) value = sign * 30 * m;
    image = ApplyAugmentOp(image, op, value);
  }
  return image;
}

}  // namespace semvq
