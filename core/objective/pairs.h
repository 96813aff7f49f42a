// Which image and text belong together, and random draws keyed by sample.
#ifndef SEMVQ_CORE_OBJECTIVE_PAIRS_H_
#define SEMVQ_CORE_OBJECTIVE_PAIRS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/forward/batch.h"
#include "core/random/keyed.h"

namespace semvq {

class Communicator;  // core/distributed/communicator.h

// int64 [B] on the batch's device: a 52-bit hash of each image id, never
// negative and exact in float64 too. Equal hashes are positives of each other
// (n different ids collide with probability below n^2 / 2^53).
at::Tensor ImageIdKeys(const Batch& batch);

// A text's image row and its place among that image's texts.
struct TextPlace {
  int64_t image = 0;
  int64_t index = 0;
};

// [T], on the host.
std::vector<TextPlace> TextPlaces(const Batch& batch);

// int64 [B] on the batch's device: the first text of every image. Throws
// c10::Error when an image has none.
at::Tensor FirstTexts(const Batch& batch);

// Keys of the batch's images [B] and texts [T] for random draws: a function of
// the sample's number (and the text's index in its image), hence the same
// wherever in whichever batch or rank the sample is.
std::vector<uint64_t> ImageDrawKeys(const Batch& batch);
std::vector<uint64_t> TextDrawKeys(const Batch& batch);

// Keys of all ranks, one rank's after the other's; of this one without a group.
// Collective.
std::vector<uint64_t> GatherKeys(const std::vector<uint64_t>& keys,
                                 Communicator* group);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_PAIRS_H_
