// VQA accuracy as the official evaluation script computes it: how answers are
// normalised before they are compared, and the annotations file of VQA v2.
//
// The behaviour is that of the script's current version, oddities included. (An
// earlier version normalised the prediction even where all annotators agree,
// and of their answers the punctuation only.)
#ifndef SEMVQ_CORE_EVAL_VQA_OFFICIAL_H_
#define SEMVQ_CORE_EVAL_VQA_OFFICIAL_H_

#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace semvq {

// Line breaks and tabs to spaces; no white space at the ends.
std::string StripVqaAnswer(absl::string_view answer);

// The normalisation proper, of a stripped answer:
// - ; / [ ] " { } ( ) = + \ _ - > < @ ` , ? ! are deleted where the character
//   stands beside a space anywhere in the answer, or where the answer holds a
//   comma between two digits; else they become spaces;
// - the first 32 periods that no digit follows are deleted (the script passes
//   re.UNICODE as the number of replacements);
// - lower case; number words from "none" (0) to "ten" become digits; "a", "an"
//   and "the" are dropped; contractions get their apostrophe, by a table with
//   capital letters in some keys, which hence never apply, and one entry that
//   takes the apostrophe away;
// - words are joined by single spaces.
std::string NormalizeVqaAnswer(absl::string_view answer);

// In [0, 1]: the mean over the annotators of min(1, matches among the others /
// 3). Both sides are normalised if the stripped answers of the annotators
// differ, and compared as they are if all agree. `said`: one answer of each
// annotator, in any order; with one annotator alone nothing can match, so 1 for
// the very answer is what this gives, where the script gives 0.
double OfficialVqaAccuracy(absl::string_view answer,
                           absl::Span<const std::string> said);

struct VqaAnnotation {
  std::string question_type, answer_type;
  std::vector<std::string> answers;  // One an annotator.
};

// The official annotations file, {"annotations": [{"question_id", ...}]}.
class VqaAnnotations {
 public:
  // Errors name the file, the record and what is wrong: another format (which
  // one it looks like), a question twice, no answers, two answers of one
  // annotator.
  static absl::StatusOr<VqaAnnotations> Load(const std::string& path);

  // Null where the question is not in the file.
  const VqaAnnotation* Find(const std::string& question_id) const;
  const absl::btree_map<std::string, VqaAnnotation>& all() const {
    return by_question_;
  }

 private:
  absl::btree_map<std::string, VqaAnnotation> by_question_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_VQA_OFFICIAL_H_
