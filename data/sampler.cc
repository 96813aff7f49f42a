#include "data/sampler.h"

#include "absl/strings/str_cat.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

constexpr int kRounds = 8;

}  // namespace

absl::StatusOr<Sampler> Sampler::Create(int64_t size, int64_t batch_size,
                                        uint64_t seed) {
  if (size < 1 || size < batch_size) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data set is smaller than a batch: got ", size,
                     " samples, expected at least ", batch_size,
                     " (trainer { batch_size } times the ranks). Lower "
                     "batch_size, or add data"));
  }
  return Sampler(size, seed);
}

Sampler::Sampler(int64_t size, uint64_t seed)
    : size_(size), seed_(seed), half_bits_(2) {
  while (half_bits_ < 31 && (int64_t{1} << (2 * half_bits_)) < size_)
    ++half_bits_;
}

// A Feistel network is a permutation of [0, 4^half_bits); walking its cycle
// until the value is in range again makes it one of [0, size) (Black and
// Rogaway 2002), in fewer than 4 steps on average.
int64_t Sampler::Index(int64_t number) const {
  const uint64_t key =
      StreamKey(seed_, "order", static_cast<uint64_t>(Epoch(number)));
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = static_cast<uint64_t>(number % size_);
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed =
          Mix64(key ^ Mix64(right ^ (static_cast<uint64_t>(round) << 32))) &
          mask;
      const uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace semvq
