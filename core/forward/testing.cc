#include "core/forward/testing.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace semvq {

Batch TestBatch(const TestBatchOptions& options) {
  torch::manual_seed(options.seed);
  // These tensors are far too small to share; on a busy machine threads that
  // wait for each other would take most of the time.
  at::set_num_threads(1);
  const int64_t texts = options.images * options.texts_per_image;
  Batch batch;
  batch.images =
      at::randn({options.images, 1, 3, options.image_size, options.image_size},
                at::kDouble);
  batch.text_ids = at::randint(options.first_id, options.vocab,
                               {texts, options.length}, at::kLong);
  batch.text_mask = at::ones({texts, options.length}, at::kBool);
  batch.text_to_image =
      at::arange(texts, at::kLong).div(options.texts_per_image, "floor");
  for (int64_t t = 0; t < texts; ++t) {
    const int64_t tokens = std::min(
        options.length, 3 + t % std::max<int64_t>(1, options.length - 2));
    batch.text_ids[t][0] = 2;
    batch.text_ids[t][tokens - 1] = 3;
    batch.text_ids[t].slice(0, tokens).fill_(0);
    batch.text_mask[t].slice(0, tokens).fill_(false);
    batch.texts.emplace_back();
  }
  for (int64_t i = 0; i < options.images; ++i) {
    batch.image_ids.push_back("image" + std::to_string(i));
    batch.sample_numbers.push_back(100 + i);
  }
  return batch;
}

TestForward::TestForward(Batch batch, bool with_teacher, ForwardOptions options)
    : batch_(std::move(batch)),
      forward_(std::make_unique<Forward>(
          batch_, student, with_teacher ? &teacher : nullptr, options)) {}

at::Tensor SumOf(const NamedTensors& scalars) {
  at::Tensor sum;
  for (const auto& [name, value] : scalars) {
    sum = sum.defined() ? sum + value : value;
  }
  return sum;
}

double ValueOf(const NamedTensors& scalars, const std::string& name) {
  for (const auto& [key, value] : scalars) {
    if (key == name) return value.item<double>();
  }
  throw std::out_of_range("no scalar named " + name);
}

}  // namespace semvq
