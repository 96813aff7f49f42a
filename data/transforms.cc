#include "data/transforms.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/pixel_kernels.h"
#include "data/randaugment.h"

namespace semvq {
namespace {

// CLIP's (Radford et al. 2021).
constexpr double kMean[3] = {0.48145466, 0.4578275, 0.40821073};
constexpr double kStd[3] = {0.26862954, 0.26130258, 0.27577711};

struct Box {
  int64_t top, left, height, width;
};

// As torchvision draws it: ten tries, then the largest central box within the
// aspect range.
Box RandomResizedCropBox(int64_t height, int64_t width, const ImageTransform& t,
                         RandomStream* random) {
  const double area = static_cast<double>(height) * static_cast<double>(width);
  for (int i = 0; i < 10; ++i) {
    const double target = area * random->Uniform(t.min_scale(), t.max_scale());
    const double ratio = std::exp(
        random->Uniform(std::log(t.min_ratio()), std::log(t.max_ratio())));
    const int64_t w = std::llround(std::sqrt(target * ratio)),
                  h = std::llround(std::sqrt(target / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    const int64_t top = random->Below(height - h + 1);
    return {top, random->Below(width - w + 1), h, w};
  }
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  int64_t w = width, h = height;
  if (ratio < t.min_ratio())
    h = std::min<int64_t>(height,
                          std::llround(static_cast<double>(w) / t.min_ratio()));
  if (ratio > t.max_ratio())
    w = std::min<int64_t>(width,
                          std::llround(static_cast<double>(h) * t.max_ratio()));
  w = std::max<int64_t>(w, 1), h = std::max<int64_t>(h, 1);
  return {(height - h) / 2, (width - w) / 2, h, w};
}

at::Tensor Crop(const at::Tensor& image, const Box& box) {
  return image.narrow(0, box.top, box.height).narrow(1, box.left, box.width);
}

// Shorter side to `size`, then the centre.
at::Tensor CenterCrop(at::Tensor image, int64_t size) {
  // A strip of 1 x 65,000 pixels would grow to size x 65,000 * size before it
  // is cropped; its ends are cut first.
  const int64_t limit = 4 * std::min(image.size(0), image.size(1));
  const int64_t h0 = std::min(image.size(0), limit),
                w0 = std::min(image.size(1), limit);
  image =
      Crop(image, {(image.size(0) - h0) / 2, (image.size(1) - w0) / 2, h0, w0});
  const int64_t shorter = std::min(h0, w0);
  image = ResizeBicubic(image, size * h0 / shorter, size * w0 / shorter);
  return Crop(image, {(image.size(0) - size) / 2, (image.size(1) - size) / 2,
                      size, size});
}

// One pass: mirrored or not, uint8 [S, S, 3] (any strides) to normalised
// planes.
void WritePlanes(const at::Tensor& image, bool flip, const ImageTransform& t,
                 float* out) {
  const int64_t size = image.size(0), plane = size * size;
  float scale[3], shift[3];
  for (int c = 0; c < 3; ++c) {
    const double mean = t.mean_size() == 3 ? t.mean(c) : kMean[c];
    const double std = t.std_size() == 3 ? t.std(c) : kStd[c];
    scale[c] = static_cast<float>(1.0 / (255.0 * std));
    shift[c] = static_cast<float>(-mean / std);
  }
  // The rows' pixels lie dense, whatever is between the rows.
  const at::Tensor dense =
      image.stride(1) == 3 && image.stride(2) == 1 ? image : image.contiguous();
  for (int64_t y = 0; y < size; ++y) {
    BestPixelKernels().normalize_row(
        dense.const_data_ptr<uint8_t>() + y * dense.stride(0), size, flip,
        scale, shift, out + y * size, plane);
  }
}

at::Tensor Mirror(const at::Tensor& image) {
  return image.flip(1).contiguous();
}

}  // namespace

absl::Status ValidateImageTransform(const ImageTransform& t) {
  std::vector<std::string> errors;
  const auto check = [&errors](bool good, const std::string& message) {
    if (!good) errors.push_back(message);
  };
  check(t.size() >= 1 && t.size() <= 4096,
        absl::StrCat("size: got ", t.size(), ", expected 1 to 4096 pixels"));
  check(
      t.min_scale() > 0 && t.min_scale() <= t.max_scale() && t.max_scale() <= 1,
      absl::StrCat("min_scale, max_scale: got ", t.min_scale(), " and ",
                   t.max_scale(),
                   ", expected 0 < min_scale <= max_scale <= 1"));
  check(t.min_ratio() > 0 && t.min_ratio() <= t.max_ratio() &&
            std::isfinite(t.max_ratio()),
        absl::StrCat("min_ratio, max_ratio: got ", t.min_ratio(), " and ",
                     t.max_ratio(), ", expected 0 < min_ratio <= max_ratio"));
  check(t.flip() >= 0 && t.flip() <= 1,
        absl::StrCat("flip: got ", t.flip(),
                     ", expected a probability in [0, 1]"));
  check(t.randaugment_ops() >= 0 && t.randaugment_ops() <= 100,
        absl::StrCat("randaugment_ops: got ", t.randaugment_ops(),
                     ", expected 0 to 100"));
  check(t.randaugment_magnitude() >= 0 && t.randaugment_magnitude() <= 10,
        absl::StrCat("randaugment_magnitude: got ", t.randaugment_magnitude(),
                     ", expected 0 to 10"));
  check(t.mean_size() == 0 || t.mean_size() == 3,
        absl::StrCat("mean: got ", t.mean_size(),
                     " values, expected 3 (red, green, blue) or none"));
  check(t.std_size() == 0 || t.std_size() == 3,
        absl::StrCat("std: got ", t.std_size(),
                     " values, expected 3 (red, green, blue) or none"));
  for (double m : t.mean())
    check(std::isfinite(m),
          absl::StrCat("mean: got ", m, ", expected a number"));
  for (double s : t.std())
    check(std::isfinite(s) && s > 0,
          absl::StrCat("std: got ", s, ", expected more than 0"));
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

at::Tensor ReduceImage(const at::Tensor& image, const ImageTransform& t,
                       bool training) {
  if (t.crop() == ImageTransform::CENTER_CROP)
    return CenterCrop(image, t.size()).contiguous();
  if (t.crop() == ImageTransform::RANDOM_RESIZED_CROP && training) return image;
  return ResizeBicubic(image, t.size(), t.size());
}

void TransformImageTo(const at::Tensor& image, const ImageTransform& t,
                      bool training, RandomStream random, float* out) {
  const int64_t size = t.size();
  at::Tensor square = ReduceImage(image, t, training);
  if (t.crop() == ImageTransform::RANDOM_RESIZED_CROP && training) {
    square = ResizeBicubic(
        Crop(image,
             RandomResizedCropBox(image.size(0), image.size(1), t, &random)),
        size, size);
  }
  bool flip = training && random.Bernoulli(t.flip());
  if (training && t.randaugment_ops() > 0) {
    // Rotation and shear see the mirrored image, as in ALBEF's order.
    square = flip ? Mirror(square) : square.contiguous();
    flip = false;
    square = RandAugment(square, t.randaugment_ops(), t.randaugment_magnitude(),
                         &random);
  }
  WritePlanes(square, flip, t, out);
}

at::Tensor TransformImage(const at::Tensor& image, const ImageTransform& t,
                          bool training, RandomStream random) {
  at::Tensor out = at::empty({3, t.size(), t.size()}, at::kFloat);
  TransformImageTo(image, t, training, random, out.data_ptr<float>());
  return out;
}

int64_t NeededSide(const ImageTransform& t) {
  // Twice the output keeps the antialiased filter's input rich; the smallest
  // crop must still be as large as the output.
  if (t.crop() != ImageTransform::RANDOM_RESIZED_CROP)
    return 2 * int64_t{t.size()};
  const double stretch = std::max(t.max_ratio(), 1.0 / t.min_ratio());
  return std::max(2 * int64_t{t.size()},
                  static_cast<int64_t>(std::ceil(
                      t.size() * std::sqrt(stretch / t.min_scale()))));
}

}  // namespace semvq
