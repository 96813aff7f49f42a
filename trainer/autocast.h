#ifndef SEMVQ_TRAINER_AUTOCAST_H_
#define SEMVQ_TRAINER_AUTOCAST_H_

#include <ATen/autocast_mode.h>

namespace semvq {

// Runs matrix products in bfloat16 for its lifetime.
class Autocast {
 public:
  Autocast(bool enabled, at::DeviceType device)
      : enabled_(enabled), device_(device) {
    if (!enabled_) return;
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (!enabled_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool enabled_;
  at::DeviceType device_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_AUTOCAST_H_
