// Interface of the quantizers.
#ifndef SEMVQ_CORE_PLUGIN_QUANTIZER_H_
#define SEMVQ_CORE_PLUGIN_QUANTIZER_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/forward/types.h"

namespace semvq {

class Communicator;  // core/distributed/communicator.h

enum class QuantizeMode {
  kTrain,       // Statistics for the codebook's update are gathered, losses are
                // computed.
  kAssignOnly,  // Teacher, masked views, evaluation: nothing but codes and
                // vectors.
};

struct QuantizeContext {
  QuantizeMode mode = QuantizeMode::kAssignOnly;
  at::Tensor valid;     // bool [B, N]; undefined: all. Positions not valid get
                        // code -1 and count nowhere.
  uint64_t seed = 1;    // With the step and a purpose, keys every random draw.
  int64_t step = 0;     // Optimizer steps done.
  bool frozen = false;  // The codes must not change, except that the first
                        // batch may initialise them.
  // [B]: one key for each image of the batch, the same wherever the image is.
  // With the seed and a purpose it keys the draws made for it; empty where
  // nobody knows the images.
  std::vector<uint64_t> draw_keys;
  // The ranks that train together; null: this one alone. Their features, one
  // rank's after the other's, are one batch: what is learned and reported is
  // the same on every rank and what one rank would get of that batch, and the
  // mean of the ranks' losses, gradients included, is that batch's loss. In
  // kTrain, Quantize and AfterStep then wait for each other: every rank calls
  // them in the same order, with features of the same shape.
  Communicator* group = nullptr;
};

class Quantizer : public torch::nn::Module {
 public:
  // [B, N, D] in the codebook's dimension.
  virtual Quantized Quantize(const at::Tensor& features,
                             const QuantizeContext& context) = 0;
  // int64 [..., G] to float [..., D]; throws c10::Error when a code is out of
  // range.
  virtual at::Tensor Lookup(const at::Tensor& codes) = 0;
  virtual CodebookInfo info() const = 0;
  // Names of its losses whose gradient is an estimator's (straight-through),
  // not the derivative of the loss.
  virtual std::vector<std::string> EstimatedLosses() const { return {}; }
  // One value for each code, [K], by name; on the device, as AfterStep left it.
  // For logs, which draw their histograms: "code_counts", how often each code
  // occurred in the last step, and "code_age", the steps since it last did
  // (codes that never did: all steps so far). Empty where codes are not
  // counted.
  virtual NamedTensors CodeValues() const { return {}; }
  // Once after every optimizer step that was taken: EMA update, revival (when
  // not frozen), history of use. What it needs was gathered by Quantize in
  // kTrain mode, over all micro-steps. Its state is in the module's parameters
  // and buffers.
  virtual absl::Status AfterStep(const QuantizeContext& /*context*/) {
    return absl::OkStatus();
  }
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_QUANTIZER_H_
