// Named random streams: every random draw in SemVQ is keyed by (seed, purpose,
// numbers), never by rank, thread or the draws made before it. The same key
// gives the same draws on any machine and any world size.
#ifndef SEMVQ_CORE_RANDOM_STREAM_H_
#define SEMVQ_CORE_RANDOM_STREAM_H_

#include <cstdint>
#include <string_view>
#include <utility>

namespace semvq {

// 64-bit finaliser of SplitMix64 (Steele, Lea, Flood 2014).
inline uint64_t Mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// A 64-bit key of (seed, purpose, a, b); also the seed for an at::Generator.
inline uint64_t StreamKey(uint64_t seed, std::string_view purpose,
                          uint64_t a = 0, uint64_t b = 0) {
  uint64_t key = Mix64(seed);
  for (char c : purpose) key = Mix64(key ^ static_cast<unsigned char>(c));
  return Mix64(Mix64(key ^ Mix64(a)) ^ Mix64(~b));
}

class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : state_(key) {}
  RandomStream(uint64_t seed, std::string_view purpose, uint64_t a = 0,
               uint64_t b = 0)
      : state_(StreamKey(seed, purpose, a, b)) {}

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    return Mix64(state_);
  }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  double Uniform(double low, double high) {
    return low + (high - low) * Uniform();
  }
  // In [0, n), n > 0; the bias of the multiply-shift is below n / 2^64.
  int64_t Below(int64_t n) {
    return static_cast<int64_t>(
        (static_cast<unsigned __int128>(Next()) * static_cast<uint64_t>(n)) >>
        64);
  }
  bool Bernoulli(double p) { return Uniform() < p; }
  // Fisher-Yates over [begin, end).
  template <class It>
  void Shuffle(It begin, It end) {
    for (int64_t i = (end - begin) - 1; i > 0; --i)
      std::swap(begin[i], begin[Below(i + 1)]);
  }

 private:
  uint64_t state_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_RANDOM_STREAM_H_
