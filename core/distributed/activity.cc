#include "core/distributed/activity.h"

#include <exception>

#include "absl/strings/str_join.h"

namespace semvq {

void Activity::SetStep(int64_t step) {
  std::lock_guard<std::mutex> lock(mutex_);
  step_ = step;
}

ActivitySnapshot Activity::Snapshot() const {
  std::lock_guard<std::mutex> lock(mutex_);
  ActivitySnapshot now;
  now.step = step_;
  now.waits_entered = waits_entered_;
  now.doing = absl::StrJoin(
      phases_, ", ",
      [](std::string* out, const Phase& p) { out->append(p.name); });
  if (!phases_.empty()) {
    now.waits = phases_.back().waits;
    now.seconds = std::chrono::duration<double>(
                      std::chrono::steady_clock::now() - phases_.back().since)
                      .count();
  }
  return now;
}

std::string Activity::failed_wait() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failed_wait_;
}

ActivityScope::ActivityScope(Activity* activity, absl::string_view name,
                             Waits waits)
    : activity_(activity), exceptions_(std::uncaught_exceptions()) {
  if (activity_ == nullptr) return;
  std::lock_guard<std::mutex> lock(activity_->mutex_);
  const bool for_all = waits == Waits::kForAllRanks;
  if (for_all) ++activity_->waits_entered_;
  activity_->phases_.push_back(
      {std::string(name), for_all, std::chrono::steady_clock::now()});
}

ActivityScope::~ActivityScope() {
  if (activity_ == nullptr) return;
  std::lock_guard<std::mutex> lock(activity_->mutex_);
  if (activity_->phases_.back().waits &&
      std::uncaught_exceptions() > exceptions_) {
    activity_->failed_wait_ = activity_->phases_.back().name;
  }
  activity_->phases_.pop_back();
}

}  // namespace semvq
