#include "core/quantize/draws.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/distributed/communicator.h"
#include "core/random/keyed.h"
#include "core/random/stream.h"

namespace semvq {

double CosineRamp(double start, double end, int64_t steps, int64_t step) {
  if (step >= steps) return end;
  const double progress =
      static_cast<double>(step) / static_cast<double>(steps);
  return end + (start - end) * 0.5 * (1 + std::cos(M_PI * progress));
}

at::Tensor GumbelNoise(const at::Tensor& features, int64_t num_codes,
                       const std::string& purpose, const std::string& quantizer,
                       const QuantizeContext& context) {
  const int64_t batch = features.size(0), positions = features.size(1);
  std::vector<uint64_t> rows = context.draw_keys;
  TORCH_CHECK(rows.empty() || static_cast<int64_t>(rows.size()) == batch,
              "quantizer ", quantizer, ": ", rows.size(), " draw keys for ",
              batch, " images");
  const int64_t first =
      context.group == nullptr ? 0 : context.group->rank() * batch;
  for (int64_t b = static_cast<int64_t>(rows.size()); b < batch; ++b) {
    rows.push_back(
        Mix64(Mix64(context.step) ^ static_cast<uint64_t>(first + b)));
  }
  std::vector<uint64_t> columns(positions * num_codes);
  std::iota(columns.begin(), columns.end(), uint64_t{0});
  return KeyedGumbel(context.seed, purpose, rows, columns)
      .view({batch * positions, num_codes});
}

}  // namespace semvq
