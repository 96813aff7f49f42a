#include <torch/types.h>

#include "absl/strings/str_cat.h"
#include "core/random/stream.h"
#include "data/randaugment.h"
#include "data/transforms.h"
#include "tests/golden/cases.h"

namespace semvq {
namespace {

// [n, columns], float64; no rows where the input is not given.
at::Tensor Rows(const Tensors& in, const std::string& name, int64_t columns) {
  const auto found = in.find(name);
  if (found == in.end()) return at::zeros({0, columns}, at::kDouble);
  TORCH_CHECK(found->second.dim() == 2 && found->second.size(1) == columns,
              name, ": got ", found->second.sizes(), ", expected [n, ", columns,
              "]");
  return found->second.to(at::kDouble);
}

// Doubles hold keys below 2^53 exactly.
uint64_t Key(double value) { return static_cast<uint64_t>(value); }

}  // namespace

absl::StatusOr<Tensors> RunImages(const Tensors& in) {
  auto given = Input(in, "image");
  if (!given.ok()) return given.status();
  const at::Tensor image = given->contiguous();
  Tensors out;
  const at::Tensor resize = Rows(in, "resize", 2);
  for (int64_t r = 0; r < resize.size(0); ++r) {
    const auto row = resize.accessor<double, 2>()[r];
    out[absl::StrCat("resize/", r)] = ResizeBicubic(
        image, static_cast<int64_t>(row[0]), static_cast<int64_t>(row[1]));
  }
  const at::Tensor ops = Rows(in, "ops", 2);
  for (int64_t m = 0; m < ops.size(0); ++m) {
    const auto row = ops.accessor<double, 2>()[m];
    TORCH_CHECK(row[0] >= 0 && row[0] < kNumAugmentOps, "no operation ",
                row[0]);
    const auto op = static_cast<AugmentOp>(row[0]);
    const bool geometric = op >= AugmentOp::kShearX;
    out[absl::StrCat(geometric ? "geometric/" : "photometric/", m)] =
        ApplyAugmentOp(image, op, row[1]).clone();
  }
  const at::Tensor crops = Rows(in, "crops", 7);
  for (int64_t c = 0; c < crops.size(0); ++c) {
    const auto row = crops.accessor<double, 2>()[c];
    ImageTransform t;
    t.set_crop(ImageTransform::RANDOM_RESIZED_CROP);
    t.set_size(static_cast<int32_t>(row[1]));
    t.set_min_scale(row[2]);
    t.set_max_scale(row[3]);
    t.set_min_ratio(row[4]);
    t.set_max_ratio(row[5]);
    t.set_flip(row[6]);
    for (int i = 0; i < 3; ++i) {
      t.add_mean(0);
      t.add_std(1);
    }
    if (absl::Status status = ValidateImageTransform(t); !status.ok()) {
      return status;
    }
    out[absl::StrCat("crop/", c)] =
        TransformImage(image, t, /*training=*/true, RandomStream(Key(row[0])));
  }
  const at::Tensor augment = Rows(in, "randaugment", 3);
  for (int64_t k = 0; k < augment.size(0); ++k) {
    const auto row = augment.accessor<double, 2>()[k];
    RandomStream random(Key(row[0]));
    out[absl::StrCat("randaugment/", k)] =
        RandAugment(image, static_cast<int>(row[1]), static_cast<int>(row[2]),
                    &random)
            .clone();
  }
  return out;
}

}  // namespace semvq
