// What codes and words have to do with each other.
#ifndef SEMVQ_TASKS_CODEBOOK_SEMANTICS_STATISTICS_H_
#define SEMVQ_TASKS_CODEBOOK_SEMANTICS_STATISTICS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace semvq {

// A bag of numbered items for every image, each with its share; the shares of
// an image sum to 1 (or it has no items). Kept as sparse rows.
struct Bags {
  int64_t items = 0;              // Numbers are below it.
  std::vector<int64_t> begin{0};  // Of every image's items, and the end.
  std::vector<int32_t> item;      // Ascending in an image.
  std::vector<float> share;

  int64_t images() const { return static_cast<int64_t>(begin.size()) - 1; }
  // An image whose items are `numbers`, repeated as often as they occur.
  void Add(std::vector<int32_t> numbers);
  // Leaves out the items that do not occur; returns the old numbers of the new.
  std::vector<int64_t> Compact();
};

// Sum over the images of the products of shares: double [a.items, b.items].
// Image i of `a` goes with image order[i] of `b`; only those are summed whose
// `part` is `wanted` (all when `part` is empty).
at::Tensor JointShares(const Bags& a, const Bags& b,
                       const std::vector<int64_t>& order,
                       const std::vector<int8_t>& part = {}, int8_t wanted = 0);

// How well held-out images' words are known from their codes.
struct Prediction {
  double bits = 0;      // Cross-entropy of an image's words, per word.
  double accuracy = 0;  // Percentage whose likeliest word is one of them.
  int64_t images = 0;   // Held out, with words; 0: too few, nothing is known.
};

// Naive Bayes over bags of codes: ln p(w | image) is ln p(w) + s times the mean
// over the image's tokens of ln p(code | w) / p(code), up to normalisation. The
// counts come from three fifths of the images, s (0: the codes say nothing)
// from one fifth, the measures from the last. `seed` says which images are
// which.
Prediction PredictWords(const Bags& codes, const Bags& words,
                        const std::vector<int64_t>& order, uint64_t seed);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CODEBOOK_SEMANTICS_STATISTICS_H_
