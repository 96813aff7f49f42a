// Helpers for the tests of quantizers.
#ifndef SEMVQ_CORE_QUANTIZE_TESTING_H_
#define SEMVQ_CORE_QUANTIZE_TESTING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/quantizer.h"

namespace semvq {

// Training at `step`.
QuantizeContext TrainingContext(int64_t step);

// The tensor called `name`; throws c10::Error when there is none.
at::Tensor TensorNamed(const NamedTensors& tensors, const std::string& name);

// A parameter or buffer of the quantizer, itself.
at::Tensor StateNamed(Quantizer& quantizer, const std::string& name);

// Compares the gradient of each loss with central differences, entry by entry,
// in the features and in every parameter that autograd says the loss depends on
// (stop-gradients cut off the others); not of quantizer.EstimatedLosses(). The
// quantizer must be in float64 and initialised. `features` are float64.
absl::Status CheckLossGradients(Quantizer& quantizer,
                                const at::Tensor& features,
                                const QuantizeContext& context);

namespace internal {
std::shared_ptr<Quantizer> MakeForTest(
    int64_t dim, const std::function<absl::StatusOr<std::shared_ptr<Quantizer>>(
                     const PluginContext&)>& make);
}  // namespace internal

// Makes a quantizer called "codebook", with seed 5, for features of dimension
// `dim`; throws c10::Error when the factory fails.
template <class Config>
std::shared_ptr<Quantizer> MakeQuantizer(
    absl::StatusOr<std::shared_ptr<Quantizer>> (*make)(const Config&,
                                                       const PluginContext&),
    const Config& config, int64_t dim) {
  return internal::MakeForTest(
      dim, [&](const PluginContext& context) { return make(config, context); });
}

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_TESTING_H_
