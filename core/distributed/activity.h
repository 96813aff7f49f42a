// What a rank is doing right now: what the watchdogs of the others tell when it
// is late. Free of LibTorch.
#ifndef SEMVQ_CORE_DISTRIBUTED_ACTIVITY_H_
#define SEMVQ_CORE_DISTRIBUTED_ACTIVITY_H_

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace semvq {

struct ActivitySnapshot {
  int64_t step = -1;  // Optimizer steps done; -1: no training yet.
  // Phases, the outermost first: "training step, all-reduce".
  std::string doing;
  // Whether the innermost waits for all ranks, how many that did were entered,
  // this one included, and since when it lasts.
  bool waits = false;
  int64_t waits_entered = 0;
  double seconds = 0;
};

// One thread enters and leaves phases; any may look.
class Activity {
 public:
  void SetStep(int64_t step);
  ActivitySnapshot Snapshot() const;

  // The last phase that waits for all ranks and that an exception left: a
  // collective that failed. Empty: none did.
  std::string failed_wait() const;

 private:
  friend class ActivityScope;
  struct Phase {
    std::string name;
    bool waits;
    std::chrono::steady_clock::time_point since;
  };
  mutable std::mutex mutex_;
  std::vector<Phase> phases_;
  int64_t step_ = -1;
  int64_t waits_entered_ = 0;
  std::string failed_wait_;
};

// A phase, for as long as this lives. Without an activity (a process alone) it
// does nothing.
class ActivityScope {
 public:
  enum class Waits { kNo, kForAllRanks };
  ActivityScope(Activity* activity, absl::string_view name,
                Waits waits = Waits::kNo);
  ~ActivityScope();
  ActivityScope(const ActivityScope&) = delete;
  ActivityScope& operator=(const ActivityScope&) = delete;

 private:
  Activity* activity_;
  int exceptions_;  // In flight when it began.
};

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_ACTIVITY_H_
