#include "data/transforms.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "data/decode.h"
#include "data/pixel_kernels.h"
#include "data/randaugment.h"
#include "data/sampler.h"

namespace semvq {
namespace {

at::Tensor Load(const std::string& name) {
  absl::StatusOr<at::Tensor> image =
      DecodeImageFile("data/testdata/" + name, 1000000);
  EXPECT_TRUE(image.ok()) << image.status();
  return image.ok() ? *image : at::full({1, 1, 3}, 0, at::kByte);
}

int MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  if (a.sizes() != b.sizes()) return 1000;
  return (a.to(at::kInt) - b.to(at::kInt)).abs().max().item<int>();
}

ImageTransform Transform(int size, ImageTransform::Crop crop) {
  ImageTransform t;
  t.set_size(size);
  t.set_crop(crop);
  return t;
}

// Back from normalised planes to grey levels [S, S, 3].
at::Tensor Levels(const at::Tensor& planes, const ImageTransform& t) {
  at::Tensor out = planes.clone();
  const double mean[3] = {0.48145466, 0.4578275, 0.40821073},
               std[3] = {0.26862954, 0.26130258, 0.27577711};
  for (int c = 0; c < 3; ++c) {
    out[c]
        .mul_(t.std_size() == 3 ? t.std(c) : std[c])
        .add_(t.mean_size() == 3 ? t.mean(c) : mean[c])
        .mul_(255);
  }
  return out.permute({1, 2, 0}).round().to(at::kByte).contiguous();
}

TEST(Transforms, ResizeEqualsPillow) {
  struct Case {
    const char* source;
    std::vector<std::pair<int, int>> targets;  // Width, height.
  };
  for (const Case& c :
       std::vector<Case>{{"resize_97x61", {{64, 64}, {16, 16}, {33, 50}}},
                         {"resize_40x30", {{96, 96}, {41, 29}}},
                         {"resize_160x12", {{32, 32}}}}) {
    const at::Tensor source = Load(std::string(c.source) + ".png");
    for (auto [width, height] : c.targets) {
      const std::string name = std::string(c.source) + "_to_" +
                               std::to_string(width) + "x" +
                               std::to_string(height) + ".png";
      EXPECT_EQ(MaxDifference(ResizeBicubic(source, height, width), Load(name)),
                0)
          << name;
    }
  }
}

// Pillow's values come from the kernels of this processor; the others must give
// the same.
TEST(PixelKernels, AllGiveTheSameBits) {
  const PixelKernels* avx2 = Avx2PixelKernels();
  if (avx2 == nullptr) return;  // The plain ones are tested above.
  const PixelKernels& plain = GenericPixelKernels();
  RandomStream random(5);
  for (int round = 0; round < 300; ++round) {
    const int64_t in = 1 + random.Below(90), out = 1 + random.Below(70),
                  rows = 1 + random.Below(9), gap = random.Below(5);
    ResizeTaps taps;
    taps.inputs = in;
    taps.stride = 4 * (1 + random.Below(4));
    taps.weights.assign(out * taps.stride, 0);
    for (int64_t x = 0; x < out; ++x) {
      const int64_t count = 1 + random.Below(std::min(in, taps.stride));
      taps.ranges.push_back({random.Below(in - count + 1), count});
      for (int64_t k = 0; k < count; ++k) {
        taps.weights[x * taps.stride + k] =
            static_cast<int32_t>(random.Below(1 << 23)) - (1 << 21);
      }
    }
    const auto levels = [&](int64_t size) {
      std::vector<uint8_t> values(size);
      for (uint8_t& v : values) v = static_cast<uint8_t>(random.Below(256));
      return values;
    };
    const std::vector<uint8_t> image = levels(rows * (3 * in + gap));
    std::vector<uint8_t> a(rows * 3 * out), b(rows * 3 * out);
    plain.resize_rows(image.data(), 3 * in + gap, rows, taps, a.data());
    avx2->resize_rows(image.data(), 3 * in + gap, rows, taps, b.data());
    ASSERT_EQ(a, b);
    const int64_t width = 1 + random.Below(100);
    const std::vector<uint8_t> tall = levels(in * (width + gap));
    std::vector<uint8_t> c(out * width), d(out * width);
    plain.resize_columns(tall.data(), width + gap, width, taps, c.data());
    avx2->resize_columns(tall.data(), width + gap, width, taps, d.data());
    ASSERT_EQ(c, d);
    const std::vector<uint8_t> row = levels(3 * width);
    const float scale[3] = {0.01f, 0.02f, 0.003f}, shift[3] = {-1, 0.5f, 2};
    for (const bool flip : {false, true}) {
      std::vector<float> e(3 * width), f(3 * width);
      plain.normalize_row(row.data(), width, flip, scale, shift, e.data(),
                          width);
      avx2->normalize_row(row.data(), width, flip, scale, shift, f.data(),
                          width);
      ASSERT_EQ(e, f);
    }
  }
}

TEST(Transforms, EvaluationSquashesAndNormalises) {
  const at::Tensor source = Load("resize_97x61.png");
  for (auto crop :
       {ImageTransform::RESIZE, ImageTransform::RANDOM_RESIZED_CROP}) {
    const ImageTransform t = Transform(64, crop);
    const at::Tensor out =
        TransformImage(source, t, /*training=*/false, RandomStream(1));
    EXPECT_EQ(out.sizes(), (std::vector<int64_t>{3, 64, 64}));
    EXPECT_EQ(MaxDifference(Levels(out, t), Load("resize_97x61_to_64x64.png")),
              0);
  }
  ImageTransform t = Transform(2, ImageTransform::RESIZE);
  for (double m : {0.5, 0.25, 0.0}) t.add_mean(m);
  for (double s : {0.5, 1.0, 2.0}) t.add_std(s);
  const at::Tensor grey = TransformImage(at::full({5, 7, 3}, 51, at::kByte), t,
                                         false, RandomStream(1));
  EXPECT_NEAR(grey[0][0][0].item<float>(), (0.2 - 0.5) / 0.5, 1e-6);
  EXPECT_NEAR(grey[1][1][0].item<float>(), 0.2 - 0.25, 1e-6);
  EXPECT_NEAR(grey[2][1][1].item<float>(), 0.1, 1e-6);
}

TEST(Transforms, CenterCropTakesTheCentre) {
  at::Tensor image = at::full({20, 60, 3}, 10, at::kByte);
  image.narrow(1, 20, 20).fill_(200);
  const ImageTransform t = Transform(20, ImageTransform::CENTER_CROP);
  EXPECT_TRUE(Levels(TransformImage(image, t, false, RandomStream(1)), t)
                  .eq(200)
                  .all()
                  .item<bool>());
  // A strip must not grow to size x 40,000 * size first.
  const at::Tensor strip = at::full({1, 40000, 3}, 7, at::kByte);
  EXPECT_EQ(TransformImage(strip, Transform(64, ImageTransform::CENTER_CROP),
                           false, RandomStream(1))
                .size(2),
            64);
}

TEST(Transforms, FlipMirrors) {
  const at::Tensor image =
      at::arange(0, 4 * 4 * 3, at::kByte).reshape({4, 4, 3});
  ImageTransform t = Transform(4, ImageTransform::RESIZE);
  t.set_flip(1.0);
  EXPECT_TRUE(Levels(TransformImage(image, t, true, RandomStream(1)), t)
                  .equal(image.flip(1)));
  EXPECT_TRUE(
      Levels(TransformImage(image, t, false, RandomStream(1)), t).equal(image));
  t.set_flip(0.5);
  int flipped = 0;
  for (int i = 0; i < 400; ++i) {
    flipped +=
        !Levels(TransformImage(image, t, true, RandomStream(1, "flip", i)), t)
             .equal(image);
  }
  EXPECT_NEAR(flipped, 200, 50);
}

TEST(Transforms, RandomResizedCropStaysInItsRanges) {
  // Channel 0 holds x, channel 1 holds y: the crop can be read off the output.
  at::Tensor image = at::full({100, 200, 3}, 0, at::kByte);
  image.select(2, 0).copy_(at::arange(0, 200, at::kByte).expand({100, 200}));
  image.select(2, 1).copy_(
      at::arange(0, 100, at::kByte).unsqueeze(1).expand({100, 200}));
  ImageTransform t = Transform(50, ImageTransform::RANDOM_RESIZED_CROP);
  t.set_min_scale(0.1);
  t.set_max_scale(0.4);
  double least = 1, most = 0;
  for (int i = 0; i < 300; ++i) {
    const at::Tensor out =
        Levels(TransformImage(image, t, true, RandomStream(3, "crop", i)), t)
            .to(at::kInt);
    const double w =
        (out[25][49][0].item<int>() - out[25][0][0].item<int>()) * 50.0 / 49;
    const double h =
        (out[49][25][1].item<int>() - out[0][25][1].item<int>()) * 50.0 / 49;
    const double area = w * h / 20000;
    least = std::min(least, area);
    most = std::max(most, area);
    EXPECT_GT(w / h, 0.75 * 0.9);
    EXPECT_LT(w / h, 1.34 * 1.1);
  }
  EXPECT_NEAR(least, 0.1, 0.03);
  EXPECT_NEAR(most, 0.4, 0.05);
  // Ranges no box can meet: the central fallback, not a hang.
  t.set_min_scale(1.0);
  t.set_max_scale(1.0);
  EXPECT_EQ(TransformImage(image, t, true, RandomStream(1)).size(1), 50);
  EXPECT_EQ(TransformImage(at::full({1, 1, 3}, 9, at::kByte), t, true,
                           RandomStream(1))
                .size(1),
            50);
}

TEST(Transforms, DependOnTheStreamAlone) {
  const at::Tensor image = Load("resize_97x61.png");
  ImageTransform t = Transform(48, ImageTransform::RANDOM_RESIZED_CROP);
  t.set_flip(0.5);
  t.set_randaugment_ops(2);
  const at::Tensor a =
      TransformImage(image, t, true, RandomStream(1, "augment", 5));
  EXPECT_TRUE(
      a.equal(TransformImage(image, t, true, RandomStream(1, "augment", 5))));
  EXPECT_FALSE(
      a.equal(TransformImage(image, t, true, RandomStream(1, "augment", 6))));
}

TEST(Transforms, ReduceImageKeepsTheResult) {
  const at::Tensor image = Load("resize_97x61.png");
  for (auto crop : {ImageTransform::RESIZE, ImageTransform::CENTER_CROP,
                    ImageTransform::RANDOM_RESIZED_CROP}) {
    ImageTransform t = Transform(32, crop);
    t.set_flip(0.5);
    t.set_randaugment_ops(2);
    for (int i = 0; i < 8; ++i) {
      EXPECT_TRUE(TransformImage(image, t, true, RandomStream(2, "a", i))
                      .equal(TransformImage(ReduceImage(image, t, true), t,
                                            true, RandomStream(2, "a", i))));
    }
  }
}

TEST(Transforms, ValidateCollectsAllErrors) {
  EXPECT_TRUE(ValidateImageTransform(ImageTransform()).ok());
  ImageTransform t;
  t.set_size(0);
  t.set_min_scale(0.9);
  t.set_max_scale(0.5);
  t.set_flip(1.5);
  t.add_mean(0.5);
  t.add_std(0);
  const std::string message(ValidateImageTransform(t).message());
  for (const char* field :
       {"size: got 0", "min_scale, max_scale", "flip: got 1.5",
        "mean: got 1 values", "std: got 0"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << " in\n"
                                                      << message;
  }
}

TEST(RandAugment, PhotometricOperationsEqualPillow) {
  const at::Tensor image = Load("augment.png");
  const auto differs = [&](AugmentOp op, double value, const char* name) {
    return MaxDifference(ApplyAugmentOp(image, op, value), Load(name));
  };
  EXPECT_EQ(differs(AugmentOp::kAutoContrast, 0, "augment_autocontrast.png"),
            0);
  EXPECT_EQ(differs(AugmentOp::kEqualize, 0, "augment_equalize.png"), 0);
  EXPECT_EQ(differs(AugmentOp::kBrightness, 1.36, "augment_brightness.png"), 0);
  EXPECT_EQ(differs(AugmentOp::kSharpness, 1.36, "augment_sharpness.png"), 0);
  // The largest magnitude's factor, where Pillow's single precision shows.
  EXPECT_EQ(differs(AugmentOp::kSharpness, 0.1 + 1.8,
                    "augment_sharpness_largest.png"),
            0);
}

TEST(RandAugment, GeometricOperationsMoveAndFill) {
  at::Tensor image = at::full({9, 9, 3}, 0, at::kByte);
  image[4][4].fill_(250);
  const auto value = [](const at::Tensor& t, int y, int x) {
    return t[y][x][0].item<int>();
  };
  const at::Tensor right = ApplyAugmentOp(image, AugmentOp::kTranslateX, -2);
  EXPECT_EQ(value(right, 4, 6), 250);
  EXPECT_EQ(value(right, 4, 0), 128);
  const at::Tensor up = ApplyAugmentOp(image, AugmentOp::kTranslateY, 3);
  EXPECT_EQ(value(up, 1, 4), 250);
  EXPECT_EQ(value(up, 8, 4), 128);
  const at::Tensor sheared = ApplyAugmentOp(image, AugmentOp::kShearX, 0.5);
  EXPECT_EQ(value(sheared, 4, 6), 250);
  EXPECT_EQ(value(sheared, 8, 0), 128);
  EXPECT_EQ(value(ApplyAugmentOp(image, AugmentOp::kShearY, 0.5), 6, 4), 250);
  // A quarter turn about (4.5, 4.5), counter-clockwise: (4, 4) comes to (4, 5).
  EXPECT_EQ(value(ApplyAugmentOp(image, AugmentOp::kRotate, 90), 5, 4), 250);
  EXPECT_TRUE(ApplyAugmentOp(image, AugmentOp::kIdentity, 0).equal(image));
}

TEST(RandAugment, FlatImagesAndOperationRates) {
  const at::Tensor flat = at::full({6, 6, 3}, 77, at::kByte);
  EXPECT_TRUE(ApplyAugmentOp(flat, AugmentOp::kEqualize, 0).equal(flat));
  EXPECT_TRUE(ApplyAugmentOp(flat, AugmentOp::kAutoContrast, 0).equal(flat));
  EXPECT_TRUE(ApplyAugmentOp(at::full({1, 1, 3}, 7, at::kByte),
                             AugmentOp::kSharpness, 1.36)
                  .eq(7)
                  .all()
                  .item<bool>());
  // Of one operation half are not applied and a tenth of the rest is the
  // identity: 45 % change a rich image.
  const at::Tensor image = Load("augment.png");
  int changed = 0;
  for (int i = 0; i < 400; ++i) {
    RandomStream random(1, "ra", i);
    changed += !RandAugment(image, 1, 7, &random).equal(image);
  }
  EXPECT_NEAR(changed, 180, 40);
}

TEST(Sampler, EveryEpochIsAPermutation) {
  for (int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    absl::StatusOr<Sampler> sampler = Sampler::Create(size, 1, 7);
    ASSERT_TRUE(sampler.ok());
    for (int64_t epoch : {0, 1, 5}) {
      std::set<int64_t> seen;
      for (int64_t p = 0; p < size; ++p)
        seen.insert(sampler->Index(epoch * size + p));
      EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
      EXPECT_EQ(*seen.begin(), 0);
      EXPECT_EQ(*seen.rbegin(), size - 1);
    }
  }
}

TEST(Sampler, OrdersAreSpreadEvenlyAndKeyed) {
  // Over many epochs each index comes to each place about equally often, and so
  // does each pair of neighbours.
  const int64_t size = 6, epochs = 6000;
  absl::StatusOr<Sampler> sampler = Sampler::Create(size, 1, 3);
  ASSERT_TRUE(sampler.ok());
  std::vector<int> place(size * size), pair(size * size);
  for (int64_t e = 0; e < epochs; ++e) {
    for (int64_t p = 0; p < size; ++p) {
      const int64_t index = sampler->Index(e * size + p);
      ++place[p * size + index];
      if (p > 0) ++pair[sampler->Index(e * size + p - 1) * size + index];
    }
  }
  for (int count : place) EXPECT_NEAR(count, 1000, 150);
  for (int64_t i = 0; i < size * size; ++i)
    EXPECT_NEAR(pair[i], i / size == i % size ? 0 : 1000, 150);

  absl::StatusOr<Sampler> other = Sampler::Create(1000, 1, 4),
                          same = Sampler::Create(1000, 10, 4);
  absl::StatusOr<Sampler> third = Sampler::Create(1000, 1, 5);
  int equal = 0;
  for (int64_t n = 0; n < 1000; ++n) {
    EXPECT_EQ(other->Index(n), same->Index(n));
    equal += other->Index(n) == third->Index(n);
  }
  EXPECT_LT(equal, 20);
}

TEST(Sampler, RefusesADataSetSmallerThanABatch) {
  absl::StatusOr<Sampler> sampler = Sampler::Create(7, 8, 1);
  EXPECT_EQ(sampler.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(sampler.status().message());
  EXPECT_NE(
      message.find("smaller than a batch: got 7 samples, expected at least 8"),
      std::string::npos)
      << message;
  EXPECT_FALSE(Sampler::Create(0, 0, 1).ok());
  EXPECT_TRUE(Sampler::Create(8, 8, 1).ok());
}

}  // namespace
}  // namespace semvq
