#include "core/quantize/grid_quantizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <utility>
#include <vector>

#include "core/quantize/estimators.h"

namespace semvq {

GridQuantizer::GridQuantizer(std::string instance, int64_t num_codes,
                             int64_t dim, int64_t usage_window)
    : instance_(std::move(instance)),
      codes_(num_codes),
      dim_(dim),
      counter_(this, num_codes, usage_window) {
  unit_ = register_buffer("unit", at::ones({}));
}

Quantized GridQuantizer::Quantize(const at::Tensor& features,
                                  const QuantizeContext& context) {
  // Codes must not depend on whether the step runs in bfloat16.
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const FeatureRows rows =
      ToRows(features, context, dim_, unit_.scalar_type(), instance_);
  const Rounded rounded = Round(rows.z);
  const at::Tensor points = Points(rounded.codes);
  Quantized result = FromRows(
      features, rows, StraightThrough(rounded.bounded, points), rounded.codes);
  if (context.mode != QuantizeMode::kTrain) return result;

  result.losses = Losses(rows, rounded, points, &result.metrics);
  c10::NoGradGuard no_grad;
  result.metrics.emplace_back(
      "quantization_error",
      MeanOverRows(SquaredDistances(rounded.bounded, points), rows));
  result.metrics.emplace_back("nonfinite", NonFiniteRows(rows));
  for (auto& metric : counter_.Count(rounded.codes, rows, context.step))
    result.metrics.push_back(std::move(metric));
  AverageOverRanks(rows.group, &result.metrics);
  return result;
}

at::Tensor GridQuantizer::Lookup(const at::Tensor& codes) {
  CheckCodes(codes, codes_, instance_);
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  std::vector<int64_t> shape = codes.sizes().vec();
  shape.back() = dim_;
  return Points(codes.reshape({-1})).view(shape);
}

CodebookInfo GridQuantizer::info() const {
  CodebookInfo info;
  info.codes_per_group = {codes_};
  info.dim = dim_;
  return info;
}

absl::Status GridQuantizer::AfterStep(const QuantizeContext& context) {
  c10::NoGradGuard no_grad;
  counter_.AfterStep(context.step);
  return absl::OkStatus();
}

}  // namespace semvq
