// Interface of the objectives.
#ifndef SEMVQ_CORE_PLUGIN_OBJECTIVE_H_
#define SEMVQ_CORE_PLUGIN_OBJECTIVE_H_

#include <torch/nn/module.h>

#include "core/forward/forward.h"
#include "core/forward/types.h"

namespace semvq {

struct ObjectiveOutput {
  NamedTensors losses;   // Scalars that are summed into the objective's loss;
                         // each is logged as <instance>/<name>.
  NamedTensors metrics;  // Scalars, detached: logged, not optimised.
};

// An objective asks the Forward for views and returns losses; it may provide
// views itself (its heads).
class Objective : public torch::nn::Module, public ViewProvider {
 public:
  virtual ObjectiveOutput Compute(Forward& forward) = 0;
  // Called after every optimizer step that was taken, outside autograd (queues,
  // clamps).
  virtual void AfterStep() {}
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_OBJECTIVE_H_
