// Greedy and beam search for the likeliest continuation.
#ifndef SEMVQ_CORE_NN_BEAM_SEARCH_H_
#define SEMVQ_CORE_NN_BEAM_SEARCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace semvq {

struct BeamSearchOptions {
  int64_t beam_size = 1;        // 1: greedy.
  int64_t max_new_tokens = 20;  // The end counts as one.
  int64_t min_new_tokens = 0;   // No end before so many other tokens.
  // A text of n new tokens and log-likelihood l has score l / n^length_penalty.
  double length_penalty = 1.0;  // 0 or more.
  int64_t end = 0;              // The token that ends a text.
  std::vector<int64_t> barred;  // Tokens that are never written.
};

struct WrittenText {
  std::vector<int64_t> ids;  // Without prefix and end.
  double score = 0;
  bool ended = false;  // False: cut off at max_new_tokens.
};

// Logits of the token that follows: ids int64 [R, L] and the source that each
// row is about, int64 [R] and ascending, to float [R, V].
using NextLogits =
    std::function<at::Tensor(const at::Tensor& ids, const at::Tensor& sources)>;

// The text of the best score found for each of `sources` sources, all begun by
// `prefix`. `beam_size` texts are kept a source, by likelihood; of equals the
// one that continues the better text, then the lower token. A source is done
// when none of its unfinished texts can overtake its best finished one, or at
// max_new_tokens, where unfinished texts count as they stand. Greedy search
// ends with the first end. Sources do not influence each other, whatever else
// is in the batch. Ids and sources are given on `device`.
std::vector<WrittenText> BeamSearch(const NextLogits& next, int64_t sources,
                                    const std::vector<int64_t>& prefix,
                                    const BeamSearchOptions& options,
                                    at::Device device);

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_BEAM_SEARCH_H_
