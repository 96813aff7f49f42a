// Counts of true against predicted classes.
#ifndef SEMVQ_CORE_EVAL_CONFUSION_H_
#define SEMVQ_CORE_EVAL_CONFUSION_H_

#include <cstdint>
#include <vector>

namespace semvq {

class ConfusionMatrix {
 public:
  explicit ConfusionMatrix(int64_t classes);

  // Both in [0, classes).
  void Add(int64_t truth, int64_t predicted);

  int64_t classes() const { return static_cast<int64_t>(counts_.size()); }
  int64_t count(int64_t truth, int64_t predicted) const {
    return counts_.at(truth).at(predicted);
  }
  int64_t total() const { return total_; }
  int64_t correct() const;
  // How many are of class `truth`.
  int64_t support(int64_t truth) const;
  // Shares in [0, 1] of all, and of those of one class; NaN where there is
  // none to take a share of.
  double Accuracy() const;
  double Recall(int64_t truth) const;

 private:
  std::vector<std::vector<int64_t>> counts_;  // [truth][predicted]
  int64_t total_ = 0;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_CONFUSION_H_
