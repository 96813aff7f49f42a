#include "core/eval/confusion.h"

#include <cmath>

namespace semvq {
namespace {

double Share(int64_t part, int64_t whole) {
  return whole == 0 ? std::nan("")
                    : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(int64_t classes)
    : counts_(classes, std::vector<int64_t>(classes, 0)) {}

void ConfusionMatrix::Add(int64_t truth, int64_t predicted) {
  ++counts_.at(truth).at(predicted);
  ++total_;
}

int64_t ConfusionMatrix::correct() const {
  int64_t sum = 0;
  for (int64_t i = 0; i < classes(); ++i) sum += counts_[i][i];
  return sum;
}

int64_t ConfusionMatrix::support(int64_t truth) const {
  int64_t sum = 0;
  for (int64_t count : counts_.at(truth)) sum += count;
  return sum;
}

double ConfusionMatrix::Accuracy() const { return Share(correct(), total_); }

double ConfusionMatrix::Recall(int64_t truth) const {
  return Share(count(truth, truth), support(truth));
}

}  // namespace semvq
