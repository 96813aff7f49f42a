#include "core/objective/decoding.h"

#include <torch/types.h>

#include "core/objective/pairs.h"

namespace semvq {

at::Tensor Patchify(const at::Tensor& images, int64_t patch) {
  const int64_t rows = images.size(2) / patch, columns = images.size(3) / patch;
  return images.reshape({images.size(0), 3, rows, patch, columns, patch})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({images.size(0), rows * columns, 3 * patch * patch});
}

at::Tensor Unpatchify(const at::Tensor& patches, Grid grid, int64_t patch) {
  return patches
      .reshape({patches.size(0), grid.height, grid.width, 3, patch, patch})
      .permute({0, 3, 1, 4, 2, 5})
      .reshape({patches.size(0), 3, grid.height * patch, grid.width * patch});
}

at::Tensor ExplainedVariance(const at::Tensor& prediction,
                             const at::Tensor& target) {
  c10::NoGradGuard no_grad;
  const at::Tensor error = at::mse_loss(prediction, target);
  const at::Tensor constant = at::mse_loss(
      target.mean(at::IntArrayRef{0, 1}, true).expand_as(target), target);
  return 1 - error / constant.clamp_min(1e-12);
}

CrossMemory FirstTextMemory(const std::string& text, bool teacher, bool detach,
                            Forward& forward) {
  Variant clean;
  clean.teacher = teacher;
  const Tokens& tokens = forward.Get<Tokens>(TextKey(text, kTokens, clean));
  const at::Tensor rows = FirstTexts(forward.batch());
  CrossMemory memory;
  memory.values = tokens.values.index_select(0, rows);
  if (detach) memory.values = memory.values.detach();
  if (tokens.mask.defined()) memory.mask = tokens.mask.index_select(0, rows);
  return memory;
}

}  // namespace semvq
