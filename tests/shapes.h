// A small real data set, made on the spot: coloured shapes with their names.
#ifndef SEMVQ_TESTS_SHAPES_H_
#define SEMVQ_TESTS_SHAPES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace semvq {

struct ShapesOptions {
  int64_t images = 48;
  int size = 32;  // Pixels.
  uint64_t seed = 1;
};

// Writes to `folder`:
//   images/<n>.png     one of 6 colours and 4 shapes, at a drawn place and size
//   pairs.json         {image, caption}: "a red circle"
//   vqa.json           {image, question, question_id, answer, concept}: two an
//                      image, whose concept is the shape
//   vqa-{0,1}.tar      the same questions in shards, all of an image's together
//   boxes.json         where each question's shape is, as tasks/grounding reads
//                      it; its ref_ids are the question_ids
//   answer_list.json   all answers
//   vocab.txt          a WordPiece vocabulary of all words
// and the same in the benchmarks' formats: vqa_v2_{questions,annotations}.json,
// karpathy.json, coco_captions.json, snli_ve.jsonl, and nlvr2.jsonl with its
// images/dev-<n>-0-img{0,1}.png.
// The files are the same for equal options.
absl::Status WriteShapes(const std::string& folder,
                         const ShapesOptions& options = {});

}  // namespace semvq

#endif  // SEMVQ_TESTS_SHAPES_H_
