// One forward pass of everything a stage optimises.
#ifndef SEMVQ_TRAINER_LOSSES_H_
#define SEMVQ_TRAINER_LOSSES_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/forward/forward.h"
#include "core/forward/types.h"
#include "trainer/model.h"

namespace semvq {

// The weighted loss of one objective, fine-tuned task or quantizer.
struct WeightedLoss {
  std::string name;
  at::Tensor loss;  // Scalar, with its weight.
};

struct Losses {
  at::Tensor total;  // Scalar; undefined when nothing is optimised.
  std::vector<WeightedLoss> parts;  // Sum to `total`.
  NamedTensors named;    // <instance>/<loss>, unweighted and detached.
  NamedTensors metrics;  // <instance>/<metric>, detached.
};

// Objectives first, then tasks that are fine-tuned, then the own losses of
// every quantizer whose clean view was asked for: each enters the total once.
Losses ComputeLosses(Model& model, Forward& forward);

// Each part's share of the gradient at an encoder's parameters: norm of the
// part's gradient over the sum of all parts' norms, as share/<encoder>/<part>.
// Keeps the graph for the step's own backward.
NamedTensors GradientShares(Model& model, const Losses& losses);

// First of `named` that is not finite; empty when all are. Waits for the
// device.
std::string FirstNonFinite(const NamedTensors& named);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_LOSSES_H_
