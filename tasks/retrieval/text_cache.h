// Text tokens of a whole data set, for reranking.
#ifndef SEMVQ_TASKS_RETRIEVAL_TEXT_CACHE_H_
#define SEMVQ_TASKS_RETRIEVAL_TEXT_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/forward/types.h"

namespace semvq {

// Keeps the tokens without the padding (COCO's captions fill less than half of
// their 30 places), in large blocks on the tokens' device. What does not fit
// empties the cache: its texts must then be encoded again.
class TextCache {
 public:
  explicit TextCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // The next texts, numbered on from those before: values [T, L, D], and which
  // positions are real, bool [T, L].
  void Add(const Tokens& tokens, const at::Tensor& mask);

  // All texts that were added are here.
  bool complete() const { return complete_; }

  // Tokens of the texts numbered `texts` [P], where `mask` [P, L] are their
  // masks: values [P, L, D], 0 at the padding.
  Tokens Gather(const std::vector<int64_t>& texts,
                const at::Tensor& mask) const;

 private:
  int64_t max_bytes_;
  bool complete_ = true;
  Tokens form_;                     // Of the tokens added; without values.
  int64_t block_rows_ = 0;          // Rows of a block.
  int64_t used_ = 0;                // Rows in all blocks.
  std::vector<at::Tensor> blocks_;  // [block_rows_, D]
  std::vector<int64_t> starts_;     // First row of every text.
};

}  // namespace semvq

#endif  // SEMVQ_TASKS_RETRIEVAL_TEXT_CACHE_H_
