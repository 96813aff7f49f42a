#include "core/quantize/soft_codes.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "core/quantize/codebook.h"

namespace semvq {
namespace {

// Long before p log p can matter, and log's gradient is still finite.
double Floor(const at::Tensor& p) {
  return p.scalar_type() == at::kDouble ? std::numeric_limits<double>::min()
                                        : std::numeric_limits<float>::min();
}

}  // namespace

SoftCodes::SoftCodes(const at::Tensor& logits, const FeatureRows& rows)
    : rows_(rows), log_p_(at::log_softmax(logits, -1)) {}

at::Tensor SoftCodes::MeanEntropy() const {
  return MeanOverRows(-(log_p_.exp() * log_p_).sum(1), rows_);
}

at::Tensor SoftCodes::EntropyOfMean() const {
  at::Tensor p = log_p_.exp();
  at::Tensor mean;
  if (rows_.valid.defined()) {
    p = at::where(rows_.valid.unsqueeze(1), p, at::zeros({}, p.options()));
    mean = p.sum(0) / rows_.valid.sum().clamp_min(1);
  } else {
    mean = p.sum(0) / static_cast<double>(std::max<int64_t>(p.size(0), 1));
  }
  return -(mean * mean.clamp_min(Floor(mean)).log()).sum();
}

at::Tensor Orthogonality(const at::Tensor& codebook) {
  const double codes = static_cast<double>(codebook.size(0));
  const at::Tensor unit = UnitVectors(codebook);
  return at::matmul(unit.t(), unit).square().sum() / (codes * codes) -
         1 / codes;
}

}  // namespace semvq
