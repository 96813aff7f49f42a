#include "core/eval/information.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace semvq {

double NormalizedMutualInformation(const at::Tensor& joint) {
  // One pass without copies: tables may have 10^8 cells.
  const at::Tensor table = joint.to(at::kDouble).contiguous();
  const double* cell = table.data_ptr<double>();
  // Summed as the rows and columns below are: a variable that is constant has
  // an entropy of 0 and not of some rounding error.
  double total = 0;
  for (int64_t i = 0; i < table.size(0); ++i) {
    double row = 0;
    for (int64_t j = 0; j < table.size(1); ++j) {
      row += cell[i * table.size(1) + j];
    }
    total += row;
  }
  const auto term = [total](double x) {
    return x > 0 ? -(x / total) * std::log(x / total) : 0.0;
  };
  std::vector<double> columns(table.size(1), 0);
  double a = 0, b = 0, both = 0;
  for (int64_t i = 0; i < table.size(0); ++i) {
    double row = 0;
    for (int64_t j = 0; j < table.size(1); ++j, ++cell) {
      row += *cell;
      columns[j] += *cell;
      both += term(*cell);
    }
    a += term(row);
  }
  for (const double column : columns) b += term(column);
  if (a <= 0 || b <= 0) return 0;
  return std::max(0.0, a + b - both) / std::sqrt(a * b);
}

double Purity(const at::Tensor& joint) {
  const double total = joint.sum().to(at::kDouble).item<double>();
  if (total <= 0) return 0;
  return joint.amax(1).to(at::kDouble).sum().item<double>() / total;
}

}  // namespace semvq
