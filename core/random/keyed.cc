#include "core/random/keyed.h"

#include <torch/types.h>

#include "core/random/stream.h"

namespace semvq {

at::Tensor KeyedGumbel(uint64_t seed, std::string_view purpose,
                       const std::vector<uint64_t>& rows,
                       const std::vector<uint64_t>& columns) {
  at::Tensor uniform = at::empty(
      {static_cast<int64_t>(rows.size()), static_cast<int64_t>(columns.size())},
      at::kDouble);
  const uint64_t base = StreamKey(seed, purpose);
  double* out = uniform.data_ptr<double>();
  for (uint64_t row : rows) {
    const uint64_t row_key = Mix64(base ^ row);
    for (uint64_t column : columns) {
      // The middle of one of 2^52 cells: never 0 nor 1.
      *out++ = (static_cast<double>(Mix64(row_key ^ column) >> 12) + 0.5) *
               0x1.0p-52;
    }
  }
  return uniform.log_().neg_().log_().neg_();
}

}  // namespace semvq
