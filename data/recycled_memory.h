// Memory for pixels that is lent again and again.
#ifndef SEMVQ_DATA_RECYCLED_MEMORY_H_
#define SEMVQ_DATA_RECYCLED_MEMORY_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <limits>
#include <memory>

namespace semvq {

// Pictures and batches of them come and go on several threads, megabytes of all
// sizes among small things that stay longer. malloc has an arena a thread for
// them, and the arenas grow for hours: holes of the wrong size, and in each as
// many batches as were ever made there at once. What is kept here instead is
// lent again, so memory is what is needed at one time.
//
// Thread-safe. What is lent may outlive it.
class RecycledMemory {
 public:
  // Makes `count` blocks before it lends one again, so that all are in use
  // early and not after hours. Blocks of more than `max_bytes` are not kept.
  explicit RecycledMemory(
      int64_t count, int64_t max_bytes = std::numeric_limits<int64_t>::max());

  // A tensor of `sizes`, not initialised. Its block comes back by itself when
  // nothing holds it or a view of it any more. More than `count` may be lent at
  // a time, but only `count` are kept. Throws as at::empty does when there is
  // no memory.
  at::Tensor Lend(c10::IntArrayRef sizes, at::ScalarType type);

 private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf_;
};

// uint8 [height, width, 3], not initialised, from memory that the calling
// thread recycles. For pictures that are soon let go: what stays should be a
// copy, or it may hold a larger block than it needs.
at::Tensor LendPixels(int64_t height, int64_t width);

}  // namespace semvq

#endif  // SEMVQ_DATA_RECYCLED_MEMORY_H_
