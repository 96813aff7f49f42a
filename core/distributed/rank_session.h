// The ranks of one launch: how they meet, check that they are alike, train
// together, and end.
#ifndef SEMVQ_CORE_DISTRIBUTED_RANK_SESSION_H_
#define SEMVQ_CORE_DISTRIBUTED_RANK_SESSION_H_

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/distributed/activity.h"
#include "core/distributed/communicator.h"
#include "core/distributed/launch.h"
#include "core/distributed/watchdog.h"

namespace c10d {
class Store;
}  // namespace c10d

namespace semvq {

struct RankSessionOptions {
  // For the ranks to meet, and then for each collective.
  std::chrono::milliseconds timeout{600000};
  // Called from another thread with what another rank has failed at, when the
  // calling one does not come to say it itself because it hangs in a
  // collective: must end the process.
  std::function<void(const std::string&)> on_lost;
};

// What is compared: a name for messages, and a value that must be the same on
// all ranks.
using RankFacts = std::vector<std::pair<std::string, std::string>>;

class RankSession {
 public:
  // Waits for all ranks of `launch`, and begins to watch them. DeadlineExceeded
  // names the ranks that did not come in time; Unavailable: the store cannot be
  // reached or served.
  static absl::StatusOr<std::unique_ptr<RankSession>> Connect(
      const Launch& launch, RankSessionOptions options);
  ~RankSession();
  RankSession(const RankSession&) = delete;
  RankSession& operator=(const RankSession&) = delete;

  const Launch& launch() const { return launch_; }
  bool serves_store() const { return serves_store_; }
  Activity& activity() { return activity_; }

  // Collective. FailedPrecondition, the same on every rank, lists each fact of
  // which the ranks have different values, with the ranks that have them.
  absl::Status CheckAlike(const std::string& what, const RankFacts& facts);

  // Makes the process group for tensors on `device` (and on the CPU), once.
  // Collective.
  absl::Status MakeGroup(at::Device device);
  Communicator* group() { return group_.get(); }

  // What to say of an error that ends this rank. One that was `thrown` by a
  // collective is mostly the failure of another rank, which takes some seconds
  // to be known: then that, with `error` behind it. Anything else is told to
  // the other ranks. Empty: another rank has said the same. `give_up` is asked
  // now and then.
  std::string Explain(const std::string& error, bool thrown,
                      const std::function<bool()>& give_up);

  // This rank is through: waits for the others where they need this one's
  // store. Without it, they take this rank for dead.
  void Finish();

 private:
  RankSession(const Launch& launch, RankSessionOptions options);
  absl::Status OpenStore();
  absl::Status Meet();
  absl::StatusOr<std::string> MeetAsFirst(const std::string& token);
  absl::StatusOr<std::string> MeetAsOther(const std::string& token);
  c10::intrusive_ptr<c10d::Store> NewStore() const;
  absl::Status CheckAddress(const std::string& address);
  void OnLost(const std::string& what);
  // The store goes with this process: time for the others to read there why.
  void LetOthersHear();
  std::string Place() const;

  const Launch launch_;
  const RankSessionOptions options_;
  const bool serves_store_;
  Activity activity_;
  c10::intrusive_ptr<c10d::Store> server_;  // Of all starts of this launch.
  c10::intrusive_ptr<c10d::Store> store_;   // Of this one alone.
  std::string prefix_;
  int64_t checks_ = 0;
  std::atomic<bool> ending_{false};  // One thread says why.
  std::unique_ptr<Communicator> group_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_RANK_SESSION_H_
