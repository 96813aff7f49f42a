// Several ranks on this machine, for tests.
#ifndef SEMVQ_CORE_DISTRIBUTED_TESTING_H_
#define SEMVQ_CORE_DISTRIBUTED_TESTING_H_

#include <cstdint>
#include <functional>

#include "core/distributed/communicator.h"

namespace semvq {

// Calls `run` on a thread of its own for each of `size` ranks, which speak Gloo
// over the loopback device, and returns when all are through. What one throws
// is thrown on. A rank that waits for one that is gone fails after 60 s.
void RunRanks(int64_t size, const std::function<void(Communicator&)>& run);

// A port of the loopback device that was free a moment ago.
int FreePort();

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_TESTING_H_
