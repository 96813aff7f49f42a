// Caption metrics: BLEU [Papineni et al. 2002] and CIDEr-D [Vedantam et al.
// 2015] as COCO's caption evaluation computes them, the tokens it computes them
// from, and its file of reference captions.
#ifndef SEMVQ_CORE_EVAL_CAPTION_METRICS_H_
#define SEMVQ_CORE_EVAL_CAPTION_METRICS_H_

#include <array>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace semvq {

// One image: tokens with white space between them.
struct CaptionCase {
  std::string candidate;
  std::vector<std::string> references;  // At least one.
};

// Corpus BLEU-1 to BLEU-4 in [0, 1]; an image's reference length is that of the
// reference closest in length, the shorter of two. With COCO's small constants
// (1e-15 added to matches, 1e-9 to counts), so that no match gives a tiny
// number, not 0.
std::array<double, 4> CorpusBleu(absl::Span<const CaptionCase> corpus);

struct CiderScores {
  double mean = 0;
  std::vector<double> each;  // An image each, in [0, 10].
};

// What COCO's evaluation calls CIDEr, which is CIDEr-D without stemming:
// clipped n-grams of 1 to 4 words weighed by their rarity among the images'
// references, Gaussian penalty (sigma 6) on the difference in length, times 10.
// The length is counted in 2-grams, as there. With a single image all is 0:
// nothing is rare.
CiderScores Cider(absl::Span<const CaptionCase> corpus);

// Tokens as COCO's evaluation takes them: lower case, split as in the Penn
// Treebank, without the marks of punctuation. There Stanford's PTBTokenizer (a
// Java program) splits; this is a rewrite of what it does to captions. Known to
// differ: abbreviations other than the common ones keep no period, and text
// that is no English prose (addresses, smileys, dates) may be split elsewhere;
// docs/tasks.md has the measured share. As there, brackets are words
// ("-lrb-"), and so are runs like "!!".
std::string CaptionTokens(absl::string_view caption);

// COCO's captions file {"images": [{"id"}], "annotations": [{"image_id", "id",
// "caption"}]}: the captions of every image, by its id, in the file's order.
// Errors name file and record: another format, an image or a caption twice, a
// caption of an image that is not listed, an image with no caption, an empty
// caption.
absl::StatusOr<absl::btree_map<std::string, std::vector<std::string>>>
LoadCocoCaptions(const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_CAPTION_METRICS_H_
