// A process group whose collectives the watchdogs see.
#ifndef SEMVQ_CORE_DISTRIBUTED_WATCHED_GROUP_H_
#define SEMVQ_CORE_DISTRIBUTED_WATCHED_GROUP_H_

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>

#include "core/distributed/activity.h"

namespace c10d {
class ProcessGroup;
class Store;
}  // namespace c10d

namespace semvq {

// Gloo for tensors on the CPU; with a CUDA `device`, which is then this
// thread's current one, NCCL beside it. `activity` is in a phase of the
// collective's name while a caller waits for one, and must outlive the group.
// See MakeGlooGroup for the rest. Throws c10::Error for CUDA in a build without
// it.
c10::intrusive_ptr<c10d::ProcessGroup> MakeWatchedGroup(
    const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
    const char* address, c10::Device device, std::chrono::milliseconds timeout,
    Activity* activity);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_WATCHED_GROUP_H_
