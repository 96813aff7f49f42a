// Fixed, seedless splits of the image-caption pairs.
#ifndef SEMVQ_TOOLS_DATA_SPLIT_H_
#define SEMVQ_TOOLS_DATA_SPLIT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "tools/data/common.h"

namespace semvq::tools {

// Every part is sorted by image id.
struct PairSplits {
  std::vector<Pair> train;
  std::vector<Pair> unseen, random;          // test
  std::vector<Pair> val_unseen, val_random;  // validation
  // Pairs of held-out groups whose phrase their evaluation set already holds:
  // they may be neither trained on nor asked for.
  int64_t dropped = 0;
  // Pairs drawn for a random set that went back to training for that reason.
  int64_t returned = 0;
  // Keywords that training pairs lost because a held-out pair is called so.
  int64_t keywords_held_out = 0;
  // Training pairs that lost theirs because another pair has the same ones.
  int64_t keywords_shared = 0;
};

// Where a hash fraction falls. The shares give about 229 unseen and 221 random
// test pairs, and half as many of each for validation, with the packages of
// Debian 12 (the counts are printed and kept in the manifest).
struct SplitShares {
  double unseen, val_unseen, random, val_random;
};
SplitShares DefaultShares();

// Groups: HashFraction("concept:" + concept) below `unseen` is a test concept,
// in the next `val_unseen` a validation concept; the whole group leaves the
// training set. The other pairs: HashFraction("image:" + image_id) picks the
// random sets likewise. Within an evaluation set (the two validation parts
// count as one) each NormalizePhrase(caption) occurs once, so that chance is
// 1/size; the first by image id stays. A training pair loses the keywords whose
// NormalizePhrase is that of a held-out caption, and then all that are left when
// another training pair has the same list: it would be a caption of both.
PairSplits SplitPairs(std::vector<Pair> pairs, const SplitShares& shares);

// OK if no held-out concept occurs in another part, no image id occurs twice,
// and no evaluation set repeats a phrase. Says which one does.
absl::Status CheckSplits(const PairSplits& splits);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_SPLIT_H_
