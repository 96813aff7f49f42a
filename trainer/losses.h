// One forward pass of everything a stage optimises.
#ifndef SEMVQ_TRAINER_LOSSES_H_
#define SEMVQ_TRAINER_LOSSES_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "core/distributed/communicator.h"
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

// What all ranks must decide alike in a step.
struct StepVerdict {
  std::string nonfinite;  // The first value that is not finite on some rank.
  bool stop = false;      // Some rank was asked to stop.
};

// `values` have the same names on every rank. One small reduction, and the
// host waits for it. A null group is one rank.
StepVerdict Agree(const NamedTensors& values, bool stop, Communicator* group);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_LOSSES_H_
