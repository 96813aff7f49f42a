// The order in which training sees a data set: which sample stands at which
// place is computed, not stored.
#ifndef SEMVQ_DATA_SAMPLER_H_
#define SEMVQ_DATA_SAMPLER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "data/source.h"

namespace semvq {

// Samples are numbered 0, 1, 2, ... over the whole training. Nothing but the
// numbers is needed to resume, on any number of ranks.
//
// One part: number n is at place n % size of epoch n / size. Each epoch is a
// permutation of the data set keyed by (seed, "order", epoch); nothing is
// dropped between epochs. With the part's `shuffle_shards`, an epoch permutes
// the shards and then, so many of them at a time, their samples: at any time
// reads fall into these (and, for a moment, the next). With its `groups`, an
// epoch permutes runs of up to `group_size` samples of one group, which are put
// together anew in each epoch, from all samples of it.
//
// Several parts (a mixture): of every kMixtureBlock numbers, each part has its
// share, rounded to whole samples and at least one, in an order drawn for each
// block. Each part runs through epochs of its own: a sample comes again when
// all of its part have come. Epoch() counts as many samples as all parts have.
//
// Copies share what they compute. Thread-safe.
class Sampler {
 public:
  static constexpr int64_t kMixtureBlock = 1000;

  // `batch_size` is that of all ranks together. FailedPrecondition when all
  // parts have fewer samples: every batch would hold samples several times,
  // which spoils contrastive losses. (With more samples only a batch that spans
  // two epochs can.) InvalidArgument for a part without samples or with a share
  // below one in 2 kMixtureBlock.
  static absl::StatusOr<Sampler> Create(std::vector<SourcePart> parts,
                                        int64_t batch_size, uint64_t seed);
  // One part of `size` samples.
  static absl::StatusOr<Sampler> Create(int64_t size, int64_t batch_size,
                                        uint64_t seed);

  // Index in [0, size()) of the sample numbered `number`, which is at least 0.
  int64_t Index(int64_t number) const;
  // The sample that stands in for that one when it and `attempt` - 1 others
  // are bad: drawn from the same part.
  int64_t Substitute(int64_t number, int64_t attempt) const;
  int64_t Epoch(int64_t number) const { return number / size_; }
  int64_t size() const { return size_; }

 private:
  struct State;
  struct Place;  // Within a part.
  Sampler(int64_t size, std::shared_ptr<State> state)
      : size_(size), state_(std::move(state)) {}

  int64_t size_;
  std::shared_ptr<State> state_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SAMPLER_H_
