// Batches and a Forward for tests of code that asks for views: values of other
// plugins are put in place by Forward::Set.
#ifndef SEMVQ_CORE_FORWARD_TESTING_H_
#define SEMVQ_CORE_FORWARD_TESTING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "core/forward/forward.h"
#include "core/forward/types.h"

namespace semvq {

struct TestBatchOptions {
  int64_t images = 3;
  int64_t texts_per_image = 1;
  int64_t length = 6;      // Static length of a text.
  int64_t image_size = 8;  // Pixels.
  int64_t first_id = 5;    // Ids of ordinary tokens are in
  int64_t vocab = 20;      // [first_id, vocab).
  uint64_t seed = 1;
};

// A made-up batch, float64: special ids as a trained sentencepiece model has
// them ([PAD] 0, [CLS] 2, [SEP] 3), texts of 3 to `length` tokens, image i
// called "image<i>" with sample number 100 + i. Text t describes image
// t / texts_per_image.
Batch TestBatch(const TestBatchOptions& options = {});

// A Forward over a copy of a batch, with providers of its own.
class TestForward {
 public:
  explicit TestForward(Batch batch, bool with_teacher = false,
                       ForwardOptions options = {true, 7, 0});

  Providers student, teacher;  // By instance name; may be filled at any time.
  Forward& operator*() { return *forward_; }
  Forward* operator->() { return forward_.get(); }
  const Batch& batch() const { return batch_; }

 private:
  Batch batch_;
  std::unique_ptr<Forward> forward_;
};

// Sum of the named scalars: an objective's loss.
at::Tensor SumOf(const NamedTensors& scalars);

// The scalar of that name; throws std::out_of_range when there is none.
double ValueOf(const NamedTensors& scalars, const std::string& name);

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_TESTING_H_
