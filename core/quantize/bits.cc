#include "core/quantize/bits.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

namespace semvq {
namespace {

// 2^(L-1), ..., 2, 1 on the device of `like`.
at::Tensor Places(int64_t length, const at::Tensor& like) {
  const at::Tensor exponents = at::arange(
      length - 1, -1, -1, at::TensorOptions(like.device()).dtype(at::kLong));
  return at::ones_like(exponents).bitwise_left_shift(exponents);
}

// Probabilities of bits [M, n] to those of their 2^n codes, [M, 2^n].
at::Tensor Joint(const at::Tensor& ones, const at::Tensor& zeros) {
  at::Tensor joint = at::ones({ones.size(0), 1}, ones.options());
  for (int64_t d = 0; d < ones.size(1); ++d) {
    joint = (joint.unsqueeze(2) *
             at::stack({zeros.select(1, d), ones.select(1, d)}, 1).unsqueeze(1))
                .flatten(1);
  }
  return joint;
}

// -p ln p, 0 at p = 0 and with a finite gradient there: a code that nothing
// chooses has none to pass on, and infinity times 0 is not that.
at::Tensor Surprise(const at::Tensor& p) {
  const double least = p.scalar_type() == at::kDouble
                           ? std::numeric_limits<double>::min()
                           : std::numeric_limits<float>::min();
  return -p * p.clamp_min(least).log();
}

}  // namespace

at::Tensor CodesOfBits(const at::Tensor& bits) {
  return (bits * Places(bits.size(1), bits)).sum(1);
}

at::Tensor BitsOfCodes(const at::Tensor& codes, int64_t length) {
  return codes.unsqueeze(1).bitwise_and(Places(length, codes)).ne(0);
}

at::Tensor MeanBitEntropy(const at::Tensor& logits, const FeatureRows& rows) {
  // ln(1 + e^-|l|) + |l| sigmoid(-|l|): no difference of large numbers.
  const at::Tensor size = logits.abs();
  const at::Tensor entropy = at::softplus(-size) + size * at::sigmoid(-size);
  return MeanOverRows(entropy.sum(1), rows);
}

at::Tensor EntropyOfMeanBits(const at::Tensor& logits, const FeatureRows& rows,
                             int64_t together) {
  const int64_t length = logits.size(1);
  const at::Tensor ones = at::sigmoid(logits), zeros = at::sigmoid(-logits);
  const at::Tensor count = RowCount(logits, rows);
  at::Tensor sum = at::zeros({}, logits.options());
  for (int64_t first = 0; first < length; first += together) {
    const int64_t bits = std::min(together, length - first);
    // The codes' mean probabilities as a product of two halves, so that one
    // matrix product sums over the rows.
    const int64_t high = bits / 2, low = bits - high;
    at::Tensor left =
        Joint(ones.narrow(1, first, high), zeros.narrow(1, first, high));
    const at::Tensor right = Joint(ones.narrow(1, first + high, low),
                                   zeros.narrow(1, first + high, low));
    if (rows.valid.defined()) {
      left = at::where(rows.valid.unsqueeze(1), left,
                       at::zeros({}, left.options()));
    }
    const at::Tensor mean =
        MeanOverRanks(at::matmul(left.t(), right) / count, rows.group);
    sum = sum + Surprise(mean).sum();
  }
  return sum;
}

}  // namespace semvq
