#include "data/recycled_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace semvq {
namespace {

// A picture, and what is between the two passes of its resize.
constexpr int64_t kPicturesOfAThread = 3;
// One huge picture must not be remembered for ever.
constexpr int64_t kMaxPictureBytes = 32 << 20;

}  // namespace

struct RecycledMemory::Shelf {
  const int64_t count, max_bytes;
  std::mutex mutex;
  int64_t made = 0;
  std::vector<at::Tensor> free;  // uint8; the last one is warm in the cache.
};

RecycledMemory::RecycledMemory(int64_t count, int64_t max_bytes)
    : shelf_(new Shelf{count, max_bytes, {}, 0, {}}) {}

at::Tensor RecycledMemory::Lend(c10::IntArrayRef sizes, at::ScalarType type) {
  auto bytes = static_cast<int64_t>(c10::elementSize(type));
  bool absurd = false;  // at::empty says so.
  for (const int64_t size : sizes)
    absurd = __builtin_mul_overflow(bytes, size, &bytes) || absurd;
  if (absurd || bytes > shelf_->max_bytes)
    return at::empty(sizes, at::TensorOptions(type));
  at::Tensor block;
  {
    std::lock_guard<std::mutex> lock(shelf_->mutex);
    if (shelf_->made < shelf_->count || shelf_->free.empty()) {
      ++shelf_->made;
    } else {
      block = std::move(shelf_->free.back());
      shelf_->free.pop_back();
    }
  }
  if (!block.defined() || block.numel() < bytes) {
    // Half as much again, so that sizes that rise slowly settle soon.
    const int64_t room =
        block.defined() ? std::max(bytes, block.numel() / 2 * 3) : bytes;
    block = at::Tensor();
    block = at::empty({room}, at::kByte);
  }
  void* const data = block.mutable_data_ptr();
  const auto give_back = [shelf = shelf_, block](void*) {
    std::lock_guard<std::mutex> lock(shelf->mutex);
    if (static_cast<int64_t>(shelf->free.size()) < shelf->count)
      shelf->free.push_back(block);
  };
  return at::from_blob(data, sizes, give_back, at::TensorOptions(type));
}

at::Tensor LendPixels(int64_t height, int64_t width) {
  static thread_local RecycledMemory memory(kPicturesOfAThread,
                                            kMaxPictureBytes);
  return memory.Lend({height, width, 3}, at::kByte);
}

}  // namespace semvq
