// Multinomial logistic regression on fixed features.
#ifndef SEMVQ_TASKS_CLASSIFICATION_LINEAR_PROBE_H_
#define SEMVQ_TASKS_CLASSIFICATION_LINEAR_PROBE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace semvq {

struct LinearProbe {
  at::Tensor mean;          // float64 [1, D], taken from features,
  double scale = 1;         // which are then multiplied by this.
  at::Tensor weight, bias;  // float64 [D, C], [C]
  double loss = 0;          // What was minimised, at the end.
  int64_t iterations = 0;
  bool converged = false;

  // float64 [N, C], without normalisation.
  at::Tensor Scores(const at::Tensor& features) const;
};

struct LinearProbeOptions {
  int64_t classes = 2;
  // Times half the squared norm of the weights (not of the biases); above 0.
  double penalty = 1e-3;
  int64_t max_iterations = 1000;
  // No entry of the gradient is larger at the end.
  double tolerance = 1e-6;
};

// Minimises the mean cross-entropy of `labels` (int64 [N], in [0, classes))
// plus the penalty by L-BFGS [Liu and Nocedal 1989] on all of `features`
// (float [N, D], N at least 1), in float64 and in an order that is always the
// same. The minimum is unique up to a number added to all biases. `start`, of
// the same features, spares iterations; null: from zero.
LinearProbe FitLinearProbe(const at::Tensor& features, const at::Tensor& labels,
                           const LinearProbeOptions& options,
                           const LinearProbe* start = nullptr);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CLASSIFICATION_LINEAR_PROBE_H_
