// The order in which training sees a data set: which sample stands at which
// place is computed, not stored.
#ifndef SEMVQ_DATA_SAMPLER_H_
#define SEMVQ_DATA_SAMPLER_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace semvq {

// Samples are numbered 0, 1, 2, ... over the whole training; number n is at
// place n % size of epoch n / size. Each epoch is a permutation of the data set
// keyed by (seed, "order", epoch). Nothing is dropped between epochs, and
// nothing but the numbers is needed to resume.
class Sampler {
 public:
  // `batch_size` is that of all ranks together. FailedPrecondition when size <
  // batch_size: every batch would hold samples several times, which spoils
  // contrastive losses. (With more samples only a batch that spans two epochs
  // can.)
  static absl::StatusOr<Sampler> Create(int64_t size, int64_t batch_size,
                                        uint64_t seed);

  // Index in [0, size()) of the sample numbered `number`, which is at least 0.
  int64_t Index(int64_t number) const;
  int64_t Epoch(int64_t number) const { return number / size_; }
  int64_t size() const { return size_; }

 private:
  Sampler(int64_t size, uint64_t seed);

  int64_t size_;
  uint64_t seed_;
  int half_bits_;  // The permutation works on numbers of twice so many bits.
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SAMPLER_H_
