// Losses on how features are spread over codes, and codes over space.
#ifndef SEMVQ_CORE_QUANTIZE_SOFT_CODES_H_
#define SEMVQ_CORE_QUANTIZE_SOFT_CODES_H_

#include <ATen/core/Tensor.h>

#include "core/quantize/rows.h"

namespace semvq {

// The softmax p [M, K] of logits [M, K] of the rows; entropies are in nats, of
// the valid rows, and differentiable. 0 when no row is valid. E is the mean
// over all ranks' rows: H(E[p]) is the same on each, with the gradient of this
// rank's rows; E[H(p)] is this rank's share, as MeanOverRows says.
class SoftCodes {
 public:
  SoftCodes(const at::Tensor& logits, const FeatureRows& rows);
  // E[H(p)] and H(E[p]), scalars.
  at::Tensor MeanEntropy() const;
  at::Tensor EntropyOfMean() const;

 private:
  const FeatureRows& rows_;
  at::Tensor log_p_;
};

// Mean of the squared cosines of all pairs of codes [K, D], less 1 / K for the
// pairs of a code with itself (Shin et al. 2021, "Translation-equivariant image
// quantizer", equation 2). Computed from D x D second moments; no K x K matrix
// is made.
at::Tensor Orthogonality(const at::Tensor& codebook);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_SOFT_CODES_H_
