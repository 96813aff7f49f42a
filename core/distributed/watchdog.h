// Notices that another rank has died, stopped or failed, or is late, and says
// which: what would otherwise be a hang.
#ifndef SEMVQ_CORE_DISTRIBUTED_WATCHDOG_H_
#define SEMVQ_CORE_DISTRIBUTED_WATCHDOG_H_

#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/distributed/activity.h"

namespace c10d {
class Store;
}  // namespace c10d

namespace semvq {

struct WatchdogOptions {
  int64_t rank = 0;
  int64_t size = 1;
  // A rank in a phase that waits for all ranks gives up after this.
  std::chrono::milliseconds timeout{600000};
  // Every rank shows that it lives at this interval, ...
  std::chrono::milliseconds beat{1000};
  // ... and counts as dead after this long without. One that shares this
  // machine is known to be dead sooner.
  std::chrono::milliseconds silence{15000};
  // Who is gone when the store is: "rank 0 (which serves the store)".
  std::string served_by = "the store";
};

// The ranks are a ring, in which each watches the next: what a rank does is in
// the store, so a beat costs each rank three requests whatever their number.
// The first that notices something tells all.
class Watchdog {
 public:
  // `store`: of this object alone, and empty when the ranks meet. `on_lost` is
  // called at most once, from a thread of the watchdog, with what another rank
  // has told or this one noticed, in words and naming ranks. The thread that
  // trains may hang in a collective by then.
  Watchdog(c10::intrusive_ptr<c10d::Store> store, const Activity* activity,
           WatchdogOptions options,
           std::function<void(const std::string&)> on_lost);
  // Stops watching, and being seen: a rank that does not Leave counts as dead.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Tells all that this rank failed, unless a failure has been told before.
  // What was told: by this rank or by the earlier one.
  std::string TellFailure(const std::string& message);

  // What was lost, waiting up to `timeout` for it to be noticed; nullopt when
  // nothing was. `give_up` is asked now and then.
  std::optional<std::string> WaitForLoss(std::chrono::milliseconds timeout,
                                         const std::function<bool()>& give_up);

  // This rank ends: it counts as dead no longer, and watches no more.
  void Leave();
  // After Leave: waits until all other ranks have left, too. A store that this
  // process serves must not go before.
  void WaitUntilAllLeft(std::chrono::milliseconds timeout);

 private:
  struct Beat {
    std::string machine;
    int64_t pid = 0;
    ActivitySnapshot activity;
  };

  void Watch();
  void Guard();
  void Stop();
  // One round of watching: what was noticed.
  std::optional<std::string> Look();
  std::optional<std::string> LookAtNext();
  std::optional<std::string> LookAtOwnWait();
  std::optional<std::string> ToldByOthers();
  // Those of which nothing more is heard; `dead`: the next rank surely is.
  std::vector<int64_t> SilentRanks(bool dead);
  std::string DescribeSilent(const std::vector<int64_t>& ranks);
  std::string DescribeLate(const ActivitySnapshot& own);

  void SendBeat();
  std::optional<Beat> ReadBeat(int64_t rank);
  std::optional<std::string> ReadKey(const std::string& key);
  bool HasLeft(int64_t rank);
  bool IsDead(const std::optional<Beat>& beat) const;
  void Notice(const std::string& what);
  // False when the watch is to end.
  bool Sleep(std::chrono::milliseconds time);

  const c10::intrusive_ptr<c10d::Store> store_;
  const Activity* const activity_;
  const WatchdogOptions options_;
  const std::function<void(const std::string&)> on_lost_;
  const std::string machine_;

  // A request at a time; since when one is under way (steady clock; 0: none).
  class Request;
  std::mutex store_mutex_;
  std::atomic<int64_t> request_since_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::optional<std::string> loss_;

  // Of the watching thread.
  int64_t beats_ = 0;
  std::string next_beat_;
  std::chrono::steady_clock::time_point next_changed_;

  std::thread watch_, guard_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_WATCHDOG_H_
