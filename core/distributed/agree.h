// What the ranks must not decide each for itself.
#ifndef SEMVQ_CORE_DISTRIBUTED_AGREE_H_
#define SEMVQ_CORE_DISTRIBUTED_AGREE_H_

#include "absl/status/status.h"
#include "core/distributed/communicator.h"

namespace semvq {

// The same on every rank: OK when it is on all of them, else the error of the
// first rank that has one, with "rank 2: " before it. Collective; a null group
// is one rank, whose status is returned as it is.
absl::Status AgreeOnStatus(const absl::Status& status, Communicator* group);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_AGREE_H_
