// Views that training on several ranks adds to those of views.h.
#ifndef SEMVQ_CORE_FORWARD_RANK_VIEWS_H_
#define SEMVQ_CORE_FORWARD_RANK_VIEWS_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// How alike this rank's images and texts are to those of all ranks, one rank's
// after the other's: cosine / temperature. Provided by itc.
inline constexpr char kRankSimilarity[] = "rank_similarity";
struct RankSimilarity {
  at::Tensor images;  // [B, all T]
  at::Tensor texts;   // [T, all B]
};

// Texts and images of other ranks that a Pairing needs: row T + i of its texts
// is row texts[i] of all ranks' texts, one rank's after the other's; so too the
// images, in every slot. int64, any number; undefined: none. Who provides the
// Pairing puts this view in place (Forward::Set, under the key of the Pairing)
// when it makes one, where there are such rows.
inline constexpr char kOtherRows[] = "other_rows";
struct OtherRows {
  at::Tensor texts{}, images{};
};

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_RANK_VIEWS_H_
