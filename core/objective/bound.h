// The arithmetic of the bound that docs/method.md derives. For an image x, its
// caption y and visual codes z, and any distribution q over z,
//
//   ln p(x, y) >= E_q ln p(x | z, y) + E_q ln p(y, z) + H(q),
//
// with equality when q is p(z | x, y). The objective semantic_codebook and the
// tests by enumeration call these same functions. Everything is in nats and
// differentiable; nothing waits for the device.
#ifndef SEMVQ_CORE_OBJECTIVE_BOUND_H_
#define SEMVQ_CORE_OBJECTIVE_BOUND_H_

#include <ATen/core/Tensor.h>

#include "core/forward/types.h"

namespace semvq {

// The terms, one value an image, [B]. Undefined ones are left out. The prior is
// split as ln p(y, z) = ln p(z) + ln p(y | z), or as ln p(z | y) + ln p(y), or
// each half is replaced by its pseudo-likelihood; then the sum is no bound.
struct BoundTerms {
  at::Tensor reconstruction;  // E_q ln p(x | z, y)
  at::Tensor prior_codes;     // the codes' half of E_q ln p(y, z)
  at::Tensor prior_words;     // the words' half
  at::Tensor entropy;         // H(q)
};

// `kl` weighs KL(q || prior of the codes) = -(prior_codes + entropy). With `kl`
// at least 1 and the others 1 the sum stays a bound; below 1 it does not.
struct BoundWeights {
  double reconstruction = 1.0;
  double kl = 1.0;
  double words = 1.0;
};

// The defined terms with their weights, named as in BoundTerms.
NamedTensors WeightedTerms(const BoundTerms& terms,
                           const BoundWeights& weights);

// Their sum, [B]: the right-hand side of the bound.
at::Tensor Bound(const BoundTerms& terms, const BoundWeights& weights = {});

// ln N(target; prediction, sigma^2 I) summed over all dimensions but the first:
//   -|target - prediction|^2 / (2 sigma^2) - D / 2 ln(2 pi sigma^2).
// [B, ...] to [B].
at::Tensor GaussianLogLikelihood(const at::Tensor& prediction,
                                 const at::Tensor& target, double sigma);

// E_q ln p of one categorical variable: log_p [..., K] to [...]. q is
// `assignment` [..., K], or where that is undefined all on codes int64 [...];
// a negative code, a position that is not valid, gives 0.
at::Tensor ExpectedLogProbability(const at::Tensor& log_p,
                                  const at::Tensor& codes,
                                  const at::Tensor& assignment = {});

// -sum q ln q over the last dimension; 0 ln 0 is 0.
at::Tensor CategoricalEntropy(const at::Tensor& assignment);

// Estimates a sum over `total` [B] positions from those of them that were drawn
// uniformly: total * mean of values [B, M] where valid (bool [B, M]). 0 where
// none is valid. Over one hidden position this is an unbiased estimate of the
// pseudo-likelihood sum_m ln p(s_m | all others).
at::Tensor SumFromDrawn(const at::Tensor& values, const at::Tensor& valid,
                        const at::Tensor& total);

}  // namespace semvq

#endif  // SEMVQ_CORE_OBJECTIVE_BOUND_H_
