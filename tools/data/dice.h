// Random draws that are the same on every machine.
#ifndef SEMVQ_TOOLS_DATA_DICE_H_
#define SEMVQ_TOOLS_DATA_DICE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "tools/data/common.h"

namespace semvq::tools {

// SplitMix64 (Steele, Lea, Flood 2014), seeded by a name. The standard
// library's distributions differ between implementations.
class Dice {
 public:
  explicit Dice(absl::string_view name)
      : state_(static_cast<uint64_t>(HashFraction(name) * 0x1.0p53)) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // In [0, n), for n > 0; the bias at these n is beyond notice.
  int Below(int n) {
    return static_cast<int>(Next() % static_cast<uint64_t>(n));
  }
  // In [low, high].
  int Between(int low, int high) { return low + Below(high - low + 1); }

  template <typename T>
  const T& Pick(const std::vector<T>& values) {
    return values[Below(static_cast<int>(values.size()))];
  }
  template <typename T>
  void Shuffle(std::vector<T>* values) {
    for (int i = static_cast<int>(values->size()) - 1; i > 0; --i) {
      std::swap((*values)[i], (*values)[Below(i + 1)]);
    }
  }

 private:
  uint64_t state_;
};

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_DICE_H_
