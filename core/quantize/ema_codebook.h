// Codebooks that follow their features as exponential moving averages.
#ifndef SEMVQ_CORE_QUANTIZE_EMA_CODEBOOK_H_
#define SEMVQ_CORE_QUANTIZE_EMA_CODEBOOK_H_

#include "core/quantize/codebook_quantizer.h"

namespace semvq {

struct EmaOptions {
  double decay = 0.99;             // g in [0, 1).
  double epsilon = 1e-5;           // Above 0.
  double revive_threshold = 0.05;  // In (0, 1).
  bool decay_warmup = false;
};

// The decay of the n-th step (n from 0) of averages that start from data and
// forget fast at first, the least of `decay` and (1 + n) / (10 + n), as
// TensorFlow's ExponentialMovingAverage has it. Steps n any tensor.
at::Tensor WarmDecay(const at::Tensor& n, double decay);
// So many steps that WarmDecay is `decay`.
double StepsOfFullDecay(double decay);

// Checks the config fields decay, epsilon and revive_threshold.
void CheckEma(const EmaOptions& options, FieldErrors* errors);

// With n_j features of code j in an optimizer step and z their sum (van den
// Oord et al. 2017, appendix A.1),
//   N <- g N + (1 - g) n,  m <- g m + (1 - g) sum z,
//   e = m / ((N + epsilon) / (sum N + K epsilon) * sum N),
// with the metric COSINE normalised. A code starves while its N is below
// revive_threshold times the mean N; a revived one starts with that N. With
// decay_warmup, g is WarmDecay of the steps since the codes were taken from the
// first batch.
class EmaCodebookQuantizer : public CodebookQuantizer {
 public:
  // Registers the buffers codebook [K, D], ema_count [K], ema_sum [K, D] and
  // ema_steps, a scalar.
  EmaCodebookQuantizer(CodebookSpec spec, const EmaOptions& options);

 protected:
  at::Tensor Codes() const override { return codebook_; }
  void Start(const InitialCodes& initial) override;
  bool needs_sums() const override { return true; }
  void Gather(const CodeSums& step) override;
  at::Tensor Starved(const CodeSums& step) const override;
  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override;

  // The codes that an update by these statistics would give.
  at::Tensor CodesAfter(const CodeSums& step) const;

 private:
  struct Averages {
    at::Tensor count, sum;
  };
  Averages After(const CodeSums& step) const;
  at::Tensor CodesOf(const Averages& averages) const;
  at::Tensor ReviveCount() const;

  const EmaOptions ema_;
  at::Tensor codebook_, ema_count_, ema_sum_, ema_steps_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_EMA_CODEBOOK_H_
