#include "core/quantize/ema_codebook.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <utility>

namespace semvq {

void CheckEma(const EmaOptions& options, FieldErrors* errors) {
  errors->Require(options.decay >= 0 && options.decay < 1, "decay",
                  options.decay, "at least 0 and below 1");
  errors->Require(options.epsilon > 0 && std::isfinite(options.epsilon),
                  "epsilon", options.epsilon, "a positive number");
  errors->Require(
      options.revive_threshold > 0 && options.revive_threshold < 1,
      "revive_threshold", options.revive_threshold,
      "a share of the mean count, above 0 and below 1 (codebook.revive_after: "
      "0 turns revival off)");
}

at::Tensor WarmDecay(const at::Tensor& n, double decay) {
  return ((n + 1) / (n + 10)).clamp_max(decay);
}

double StepsOfFullDecay(double decay) { return 10 / (1 - decay); }

EmaCodebookQuantizer::EmaCodebookQuantizer(CodebookSpec spec,
                                           const EmaOptions& options)
    : CodebookQuantizer(std::move(spec)), ema_(options) {
  at::Tensor codes = RandomCodes();
  if (this->spec().metric == Metric::kCosine) codes = UnitVectors(codes);
  codebook_ = register_buffer("codebook", codes);
  ema_count_ = register_buffer("ema_count", at::ones({codes.size(0)}));
  ema_sum_ = register_buffer("ema_sum", codes.clone());
  ema_steps_ =
      register_buffer("ema_steps", at::full({}, StepsOfFullDecay(ema_.decay)));
}

void EmaCodebookQuantizer::Start(const InitialCodes& initial) {
  codebook_.copy_(initial.codes);
  ema_count_.copy_(initial.counts);
  ema_sum_.copy_(initial.codes * initial.counts.unsqueeze(1));
  ema_steps_.zero_();
}

void EmaCodebookQuantizer::Gather(const CodeSums& step) {
  const Averages averages = After(step);
  ema_count_.copy_(averages.count);
  ema_sum_.copy_(averages.sum);
  ema_steps_.add_(1);
}

at::Tensor EmaCodebookQuantizer::Starved(const CodeSums& /*step*/) const {
  return ema_count_ < ReviveCount();
}

void EmaCodebookQuantizer::Renew(const at::Tensor& revived,
                                 const at::Tensor& fresh) {
  const at::Tensor mask = revived.unsqueeze(1);
  if (fresh.defined()) {
    const at::Tensor count = ReviveCount();
    ema_count_.copy_(at::where(revived, count, ema_count_));
    ema_sum_.copy_(at::where(mask, fresh * count, ema_sum_));
  }
  const at::Tensor codes = CodesOf({ema_count_, ema_sum_});
  codebook_.copy_(fresh.defined() ? at::where(mask, fresh, codes) : codes);
}

at::Tensor EmaCodebookQuantizer::CodesAfter(const CodeSums& step) const {
  c10::NoGradGuard no_grad;
  return CodesOf(After(step));
}

EmaCodebookQuantizer::Averages EmaCodebookQuantizer::After(
    const CodeSums& step) const {
  const at::ScalarType type = codebook_.scalar_type();
  if (ema_.decay_warmup) {
    const at::Tensor g = WarmDecay(ema_steps_, ema_.decay);
    return {(ema_count_ * g).add_(step.counts.to(type) * (1 - g)),
            (ema_sum_ * g).add_(step.sums.to(type) * (1 - g))};
  }
  const double g = ema_.decay;
  return {(ema_count_ * g).add_(step.counts.to(type), 1 - g),
          (ema_sum_ * g).add_(step.sums.to(type), 1 - g)};
}

at::Tensor EmaCodebookQuantizer::CodesOf(const Averages& averages) const {
  // All counts can only be 0 after very long without a valid feature.
  const at::Tensor smoothed = SmoothedCounts(averages.count, ema_.epsilon)
                                  .clamp_min(std::numeric_limits<float>::min());
  const at::Tensor codes = averages.sum / smoothed.unsqueeze(1);
  return spec().metric == Metric::kCosine ? UnitVectors(codes) : codes;
}

at::Tensor EmaCodebookQuantizer::ReviveCount() const {
  return ema_count_.mean() * ema_.revive_threshold;
}

}  // namespace semvq
