#ifndef SEMVQ_CORE_METRICS_METER_H_
#define SEMVQ_CORE_METRICS_METER_H_

#include <cmath>
#include <limits>

namespace semvq {

// A running, weighted mean. NaN and infinities go in and show, as a mean that
// hides them would lie about a run.
class Meter {
 public:
  // `weight` is what the value stands for, such as samples in a batch; values
  // of weight 0 do not count.
  void Add(double value, double weight = 1) {
    if (!(weight > 0)) return;
    weight_ += weight;
    if (std::isfinite(value)) {
      // Incremental form: exact for constant input, however long the run.
      mean_ += (value - mean_) * (weight / weight_);
    } else {
      not_finite_ += value;
    }
  }

  // NaN before the first value.
  double mean() const {
    if (!(weight_ > 0)) return std::numeric_limits<double>::quiet_NaN();
    return mean_ + not_finite_;
  }
  double weight() const { return weight_; }

  void Reset() { *this = Meter(); }

 private:
  double mean_ = 0;
  double weight_ = 0;
  double not_finite_ = 0;  // NaN, or infinite, once such a value came
};

}  // namespace semvq

#endif  // SEMVQ_CORE_METRICS_METER_H_
