// Random tensors whose entries are keyed by what they are for.
#ifndef SEMVQ_CORE_RANDOM_KEYED_H_
#define SEMVQ_CORE_RANDOM_KEYED_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace semvq {

// Gumbel(0,1) noise float64 [rows, columns] on the CPU, each entry keyed by
// (seed, purpose, row key, column key). argmax(log p + noise) draws from p
// without at::multinomial, which would wait for the device.
at::Tensor KeyedGumbel(uint64_t seed, std::string_view purpose,
                       const std::vector<uint64_t>& rows,
                       const std::vector<uint64_t>& columns);

}  // namespace semvq

#endif  // SEMVQ_CORE_RANDOM_KEYED_H_
