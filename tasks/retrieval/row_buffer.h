// Rows that arrive batch by batch.
#ifndef SEMVQ_TASKS_RETRIEVAL_ROW_BUFFER_H_
#define SEMVQ_TASKS_RETRIEVAL_ROW_BUFFER_H_

#include <torch/types.h>

#include <algorithm>
#include <vector>

namespace semvq {

// One buffer that doubles, on the rows' device. A list of small tensors would
// lie scattered over the heap, between the activations of their batches, and
// keep the allocator from joining the room that those leave: seen to cost more
// memory than all that was kept.
class RowBuffer {
 public:
  void Add(const at::Tensor& rows) {
    const int64_t count = rows.size(0);
    if (!buffer_.defined() || used_ + count > buffer_.size(0)) {
      std::vector<int64_t> sizes = rows.sizes().vec();
      sizes[0] = std::max<int64_t>(1024, 2 * (used_ + count));
      at::Tensor larger = at::empty(sizes, rows.options());
      if (used_ > 0) larger.narrow(0, 0, used_).copy_(this->rows());
      buffer_ = larger;
    }
    buffer_.narrow(0, used_, count).copy_(rows);
    used_ += count;
  }
  // All rows so far; undefined before the first Add.
  at::Tensor rows() const {
    return buffer_.defined() ? buffer_.narrow(0, 0, used_) : at::Tensor();
  }

 private:
  at::Tensor buffer_;
  int64_t used_ = 0;
};

}  // namespace semvq

#endif  // SEMVQ_TASKS_RETRIEVAL_ROW_BUFFER_H_
