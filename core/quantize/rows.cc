#include "core/quantize/rows.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SquaredDistancesFunction
    : torch::autograd::Function<SquaredDistancesFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& z,
                            const at::Tensor& v) {
    context->save_for_backward({z, v});
    return (z - v).square_().sum(1);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    at::Tensor gradient = saved[0] - saved[1];
    const at::Tensor scale = (2 * grads[0]).unsqueeze(1);
    // In place unless it is to be differentiated again.
    gradient =
        c10::GradMode::is_enabled() ? gradient * scale : gradient.mul_(scale);
    return {gradient, at::Tensor()};
  }
};

}  // namespace

FeatureRows ToRows(const at::Tensor& features, const QuantizeContext& context,
                   int64_t dim, at::ScalarType type,
                   const std::string& quantizer) {
  TORCH_CHECK(features.dim() == 3 && features.size(2) == dim, "quantizer ",
              quantizer, ": expected features [B, N, ", dim, "], got ",
              features.sizes());
  const bool masked = context.valid.defined();
  TORCH_CHECK(!masked || context.valid.sizes() == features.sizes().slice(0, 2),
              "quantizer ", quantizer, ": expected valid [", features.size(0),
              ", ", features.size(1), "], got ", context.valid.sizes());
  FeatureRows rows;
  rows.z = features.to(type).reshape({-1, dim});
  if (masked) {
    rows.valid = context.valid.reshape({-1});
    // Not a product: padding may hold NaN.
    rows.z = at::where(rows.valid.unsqueeze(1), rows.z,
                       at::zeros({}, rows.z.options()));
  }
  rows.usable = rows.z.detach().isfinite().all(1);
  if (masked) rows.usable = rows.usable.logical_and(rows.valid);
  if (context.mode == QuantizeMode::kTrain) rows.group = context.group;
  if (masked && rows.group != nullptr) {
    rows.count = rows.group->AllReduceSum(rows.valid.sum())
                     .to(type)
                     .clamp_min(1)
                     .div(static_cast<double>(rows.group->size()));
  }
  return rows;
}

Quantized FromRows(const at::Tensor& features, const FeatureRows& rows,
                   const at::Tensor& vectors, const at::Tensor& codes) {
  at::Tensor out = vectors, own = codes;
  if (rows.valid.defined()) {
    out = at::where(rows.valid.unsqueeze(1), out, at::zeros({}, out.options()));
    own = at::where(rows.valid, own, at::full({}, -1, own.options()));
  }
  Quantized result;
  result.vectors = out.view(features.sizes());
  result.codes = own.view({features.size(0), features.size(1), 1});
  return result;
}

at::Tensor SquaredDistances(const at::Tensor& z, const at::Tensor& v) {
  return SquaredDistancesFunction::apply(z, v.detach());
}

at::Tensor MeanOverRows(const at::Tensor& values, const FeatureRows& rows) {
  if (!rows.valid.defined())
    return values.sum(0) / std::max<int64_t>(values.size(0), 1);
  std::vector<int64_t> shape(values.dim(), 1);
  shape[0] = -1;
  const at::Tensor counted = at::where(rows.valid.view(shape), values,
                                       at::zeros({}, values.options()));
  return counted.sum(0) / RowCount(values, rows);
}

at::Tensor RowCount(const at::Tensor& values, const FeatureRows& rows) {
  const at::ScalarType type = values.scalar_type();
  if (rows.count.defined()) return rows.count.to(type);
  if (rows.valid.defined()) return rows.valid.sum().clamp_min(1).to(type);
  return at::full({}, std::max<int64_t>(values.size(0), 1), values.options());
}

at::Tensor CountedCodes(const at::Tensor& codes, const FeatureRows& rows) {
  return at::where(rows.usable, codes, at::full({}, -1, codes.options()));
}

at::Tensor NonFiniteRows(const FeatureRows& rows) {
  const at::Tensor usable = rows.usable.sum();
  const at::Tensor own = rows.valid.defined() ? rows.valid.sum() - usable
                                              : rows.usable.size(0) - usable;
  return (rows.group == nullptr ? own : rows.group->AllReduceSum(own))
      .to(at::kFloat);
}

void AverageOverRanks(Communicator* group, NamedTensors* metrics) {
  if (group == nullptr || metrics->empty()) return;
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> values;
  for (const auto& [name, value] : *metrics)
    values.push_back(value.to(at::kDouble));
  const at::Tensor means = MeanOverRanks(at::stack(values), group);
  for (size_t i = 0; i < metrics->size(); ++i) {
    at::Tensor& value = (*metrics)[i].second;
    value = means[static_cast<int64_t>(i)].to(value.scalar_type());
  }
}

}  // namespace semvq
