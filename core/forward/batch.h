// One batch as the model sees it: image slots, texts, and which image each text
// belongs to.
#ifndef SEMVQ_CORE_FORWARD_BATCH_H_
#define SEMVQ_CORE_FORWARD_BATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/forward/text_record.h"

namespace semvq {

struct Batch {
  // float32 [B, S, 3, H, W], normalised; S image slots (2 for NLVR2, else 1).
  at::Tensor images;
  // int64 [T, L], [CLS] ... [SEP], padded.
  at::Tensor text_ids;
  // bool [T, L], true at real tokens.
  at::Tensor text_mask;
  // int64 [T]: row of `images` that a text describes. T = B and identity when
  // every image has one text.
  at::Tensor text_to_image;
  // [B]; images of one id are positives of each other's texts.
  std::vector<std::string> image_ids;
  // [T]
  std::vector<TextRecord> texts;
  // [B]: number of the sample in the stream of all samples drawn since step 0
  // (evaluation: index in the data set). With the seed and a purpose it keys
  // every random draw made for the sample, on whichever rank it is.
  std::vector<int64_t> sample_numbers;

  int64_t num_images() const { return images.size(0); }
  int64_t num_texts() const { return text_ids.size(0); }
  // Tensors moved to `device`, floating ones cast to `dtype`.
  Batch To(at::Device device, at::ScalarType dtype) const;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_BATCH_H_
