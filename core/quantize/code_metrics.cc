#include "core/quantize/code_metrics.h"

#include <ATen/ATen.h>

namespace semvq {

at::Tensor Perplexity(const at::Tensor& histogram) {
  const at::Tensor counts = histogram.to(at::kDouble);
  const at::Tensor total = counts.sum();
  const at::Tensor p = counts / total.clamp_min(1);
  const at::Tensor entropy = at::special_entr(p).sum();
  return (entropy.exp() * (total > 0)).to(at::kFloat);
}

at::Tensor UsedShare(const at::Tensor& histogram) {
  return (histogram > 0).to(at::kFloat).mean();
}

}  // namespace semvq
