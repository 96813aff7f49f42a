#include "core/objective/bound.h"

#include <torch/types.h>

#include <cmath>

namespace semvq {

NamedTensors WeightedTerms(const BoundTerms& terms,
                           const BoundWeights& weights) {
  NamedTensors out;
  const auto add = [&out](const char* name, const at::Tensor& term,
                          double weight) {
    if (term.defined()) out.emplace_back(name, term * weight);
  };
  add("reconstruction", terms.reconstruction, weights.reconstruction);
  add("prior_codes", terms.prior_codes, weights.kl);
  add("prior_words", terms.prior_words, weights.words);
  add("entropy", terms.entropy, weights.kl);
  return out;
}

at::Tensor Bound(const BoundTerms& terms, const BoundWeights& weights) {
  at::Tensor sum;
  for (const auto& [name, term] : WeightedTerms(terms, weights))
    sum = sum.defined() ? sum + term : term;
  return sum;
}

at::Tensor GaussianLogLikelihood(const at::Tensor& prediction,
                                 const at::Tensor& target, double sigma) {
  const at::Tensor squared =
      (target - prediction).square().flatten(1).sum(at::IntArrayRef{1});
  const double dimensions = static_cast<double>(prediction[0].numel());
  return squared * (-0.5 / (sigma * sigma)) -
         0.5 * dimensions * std::log(2 * M_PI * sigma * sigma);
}

at::Tensor ExpectedLogProbability(const at::Tensor& log_p,
                                  const at::Tensor& codes,
                                  const at::Tensor& assignment) {
  const at::Tensor value =
      assignment.defined()
          ? (assignment * log_p).sum(-1)
          : log_p.gather(-1, codes.clamp_min(0).unsqueeze(-1)).squeeze(-1);
  if (!codes.defined()) return value;
  return at::where(codes.ge(0), value, at::zeros({}, value.options()));
}

at::Tensor CategoricalEntropy(const at::Tensor& assignment) {
  return -at::xlogy(assignment, assignment).sum(-1);
}

at::Tensor SumFromDrawn(const at::Tensor& values, const at::Tensor& valid,
                        const at::Tensor& total) {
  const at::Tensor sum =
      at::where(valid, values, at::zeros({}, values.options())).sum(-1);
  const at::Tensor drawn = valid.sum(-1).clamp_min(1).to(values.scalar_type());
  return sum / drawn * total.to(values.scalar_type());
}

}  // namespace semvq
