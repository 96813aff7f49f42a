#include "core/quantize/soft_codes.h"

#include <ATen/ATen.h>

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
  const at::Tensor mean =
      MeanOverRanks(MeanOverRows(log_p_.exp(), rows_), rows_.group);
  return -(mean * mean.clamp_min(Floor(mean)).log()).sum();
}

at::Tensor Orthogonality(const at::Tensor& codebook) {
  const double codes = static_cast<double>(codebook.size(0));
  const at::Tensor unit = UnitVectors(codebook);
  return at::matmul(unit.t(), unit).square().sum() / (codes * codes) -
         1 / codes;
}

}  // namespace semvq
