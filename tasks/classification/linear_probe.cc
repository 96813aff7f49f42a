#include "tasks/classification/linear_probe.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>
#include <vector>

namespace semvq {
namespace {

// Rows whose scores are held at once.
constexpr int64_t kChunk = 8192;
constexpr size_t kHistory = 10;

double Dot(const at::Tensor& a, const at::Tensor& b) {
  return at::dot(a.flatten(), b.flatten()).item<double>();
}

// Loss and gradient; weights and biases are one table [D + 1, C], the biases
// its last row.
class Problem {
 public:
  Problem(at::Tensor features, at::Tensor labels, double penalty)
      : features_(std::move(features)),
        labels_(std::move(labels)),
        penalty_(penalty) {}

  double Evaluate(const at::Tensor& table, at::Tensor* gradient) const {
    const int64_t dim = features_.size(1), rows = features_.size(0);
    const at::Tensor weight = table.narrow(0, 0, dim), bias = table[dim];
    *gradient = at::zeros_like(table);
    double loss = 0;
    for (int64_t begin = 0; begin < rows; begin += kChunk) {
      const int64_t n = std::min(kChunk, rows - begin);
      const at::Tensor x = features_.narrow(0, begin, n);
      const at::Tensor label = labels_.narrow(0, begin, n).unsqueeze(1);
      const at::Tensor log_p =
          at::log_softmax(at::addmm(bias, x, weight), /*dim=*/1);
      loss -= log_p.gather(1, label).sum().item<double>();
      const at::Tensor residual = log_p.exp().scatter_add_(
          1, label, at::full({n, 1}, -1.0, log_p.options()));
      gradient->narrow(0, 0, dim).addmm_(x.t(), residual);
      gradient->select(0, dim).add_(residual.sum(0));
    }
    gradient->div_(static_cast<double>(rows));
    gradient->narrow(0, 0, dim).add_(weight, penalty_);
    return loss / static_cast<double>(rows) +
           0.5 * penalty_ * Dot(weight, weight);
  }

 private:
  const at::Tensor features_, labels_;
  const double penalty_;
};

// The steps and changes of gradient that stand for the curvature.
class Curvature {
 public:
  void Add(const at::Tensor& step, const at::Tensor& change) {
    const double product = Dot(step, change);
    // Rounding at the end of the way can make it none.
    if (!(product > 1e-300)) return;
    pairs_.push_back({step, change, product});
    if (pairs_.size() > kHistory) pairs_.pop_front();
  }
  void Clear() { pairs_.clear(); }

  // Where to go from a gradient: the two-loop recursion.
  at::Tensor Direction(const at::Tensor& gradient) const {
    at::Tensor d = gradient.neg();
    std::vector<double> along(pairs_.size());
    for (size_t i = pairs_.size(); i-- > 0;) {
      along[i] = Dot(pairs_[i].step, d) / pairs_[i].product;
      d.sub_(pairs_[i].change, along[i]);
    }
    if (!pairs_.empty()) {
      const Pair& last = pairs_.back();
      d.mul_(last.product / Dot(last.change, last.change));
    }
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const double back = Dot(pairs_[i].change, d) / pairs_[i].product;
      d.add_(pairs_[i].step, along[i] - back);
    }
    return d;
  }

 private:
  struct Pair {
    at::Tensor step, change;
    double product;
  };
  std::deque<Pair> pairs_;
};

}  // namespace

at::Tensor LinearProbe::Scores(const at::Tensor& features) const {
  return at::addmm(bias, (features.to(at::kDouble) - mean) * scale, weight);
}

LinearProbe FitLinearProbe(const at::Tensor& features, const at::Tensor& labels,
                           const LinearProbeOptions& options,
                           const LinearProbe* start) {
  c10::NoGradGuard no_grad;
  LinearProbe probe;
  at::Tensor x = features.to(at::kDouble);
  probe.mean = x.mean(0, true);
  x = x - probe.mean;
  const double variance = x.square().mean().item<double>();
  probe.scale = variance > 0 ? 1 / std::sqrt(variance) : 1;
  const Problem problem(x.mul_(probe.scale), labels, options.penalty);

  at::Tensor table =
      start != nullptr
          ? at::cat({start->weight, start->bias.unsqueeze(0)})
          : at::zeros({x.size(1) + 1, options.classes}, x.options());
  at::Tensor gradient;
  probe.loss = problem.Evaluate(table, &gradient);
  Curvature curvature;
  while (probe.iterations < options.max_iterations) {
    const double largest = gradient.abs().max().item<double>();
    probe.converged = largest <= options.tolerance;
    if (probe.converged) break;
    at::Tensor direction = curvature.Direction(gradient);
    double slope = Dot(gradient, direction);
    if (!(slope < 0)) {  // Never in exact arithmetic.
      curvature.Clear();
      direction = gradient.neg();
      slope = -Dot(gradient, gradient);
    }
    // Halved until the loss falls by a part of what the slope promises.
    at::Tensor next, next_gradient;
    double next_loss = 0;
    bool falls = false;
    for (double length = 1; !falls && length > 1e-12; length /= 2) {
      next = table + direction * length;
      next_loss = problem.Evaluate(next, &next_gradient);
      falls = next_loss <= probe.loss + 1e-4 * length * slope;
    }
    if (!falls) break;  // No step is visible in float64 any more.
    curvature.Add(next - table, next_gradient - gradient);
    table = next;
    gradient = next_gradient;
    probe.loss = next_loss;
    ++probe.iterations;
  }
  if (!probe.converged) {
    probe.converged = gradient.abs().max().item<double>() <= options.tolerance;
  }
  probe.weight = table.narrow(0, 0, x.size(1)).contiguous();
  probe.bias = table[x.size(1)].contiguous();
  return probe;
}

}  // namespace semvq
