// Small sets in the formats of the official benchmarks, from the emoji, their
// names and their CLDR labels, and from easy-VQA. docs/data.md describes them.
#ifndef SEMVQ_TOOLS_DATA_BENCHMARKS_H_
#define SEMVQ_TOOLS_DATA_BENCHMARKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/data/common.h"
#include "tools/data/easy_vqa.h"
#include "tools/data/subject.h"

namespace semvq::tools {

// What a set's maker adds to: its counts, and its lines for the user.
struct SetReport {
  Counts* counts;
  std::string* summary;
};

// nlvr2_{train,dev,test1,unseen}.jsonl and images/nlvr2/. A set of the
// identifiers is two left and two right pictures, which make four pairs, with
// two sentences that deny each other about each. One left and one right
// picture show the kind in question and the others do not, so that neither the
// sentence, nor the pictures, nor the sentence with one of the pictures tells
// anything of the label. nlvr2_train_pictures.json: the training part's
// pictures with their kinds as captions.
absl::Status MakeNlvr2(const SubjectPools& pools, OutputFolder* out,
                       SetReport report);

// snli_ve_{train,dev,test,unseen}.jsonl and images/snli_ve/. A picture has an
// emoji at the top or at the bottom, and a cover at the other place. "There is
// an animal at the top": entailed by an animal there, contradicted by another
// kind, and neutral where the cover is. Blocks of four pictures and four
// sentences hold each picture, and each sentence, once with each label.
// snli_ve_train_captions.json: the training pictures with captions such as
// "robot at the top" and "a face at the top".
absl::Status MakeSnliVe(const SubjectPools& pools, OutputFolder* out,
                        SetReport report);

// grounding_{train,val,test,unseen}.json with their _boxes.json,
// grounding_train_captions.json and images/scenes/: four to nine emoji, whose
// names share no word, on white.
absl::Status MakeGrounding(const SubjectPools& pools, OutputFolder* out,
                           SetReport report);

// v2_easy_vqa_{train,val,test}_{questions,annotations}.json.
absl::Status MakeVqaV2(const EasyVqa& data, OutputFolder* out,
                       SetReport report);

// The type the official script gives a question: the longest of its types that
// the question begins with, else "none of the above".
std::string QuestionType(absl::string_view question);

// captions_<name>.json. Image and annotation ids are numbered from `first_id`.
absl::Status MakeCocoCaptions(const std::string& name,
                              const std::vector<Pair>& pairs, int64_t first_id,
                              OutputFolder* out, SetReport report);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_BENCHMARKS_H_
