// Packs a data set into tar shards with their indexes.
#ifndef SEMVQ_TOOLS_DATA_PACK_H_
#define SEMVQ_TOOLS_DATA_PACK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/source.h"

namespace semvq::tools {

struct PackOptions {
  std::string out;               // A folder.
  std::string prefix = "shard";  // "shard-00000.tar"
  int64_t shard_samples = 5000;  // Of the data set, bad ones included.
  bool shuffle = true;           // Else in the data set's order.
  uint64_t seed = 1;             // Of the shuffling.
  int workers = 2;
  double max_bad_fraction = 0.01;  // As in training; up to 10 are fine always.
};

struct PackResult {
  int64_t samples = 0;           // Packed.
  int64_t bad = 0;               // Left out; bad_samples.txt names them.
  int64_t shards = 0, kept = 0;  // `kept`: were there already.
  int64_t bytes = 0;
  std::string pattern;  // What WebDatasetConfig.shards wants.
};

// Equal data and options give equal bytes. A shard appears when it is complete,
// its index after it; what is there already is kept, so that the same call goes
// on after an interruption. FailedPrecondition when the folder holds another
// data set's shards, and when too many samples are bad; the message names the
// first. `identity` tells data sets apart: the source's config as text.
absl::StatusOr<PackResult> Pack(const DataSource& source,
                                const std::string& identity,
                                const PackOptions& options);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_PACK_H_
