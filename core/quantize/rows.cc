#include "core/quantize/rows.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace semvq {

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

at::Tensor MeanOverRows(const at::Tensor& values, const FeatureRows& rows) {
  if (!rows.valid.defined())
    return values.sum() / std::max<int64_t>(values.size(0), 1);
  const at::Tensor counted =
      at::where(rows.valid, values, at::zeros({}, values.options()));
  return counted.sum() / rows.valid.sum().clamp_min(1);
}

at::Tensor CountedCodes(const at::Tensor& codes, const FeatureRows& rows) {
  return at::where(rows.usable, codes, at::full({}, -1, codes.options()));
}

at::Tensor NonFiniteRows(const FeatureRows& rows) {
  const at::Tensor usable = rows.usable.sum();
  return rows.valid.defined() ? (rows.valid.sum() - usable).to(at::kFloat)
                              : (rows.usable.size(0) - usable).to(at::kFloat);
}

}  // namespace semvq
