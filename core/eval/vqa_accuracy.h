// VQA accuracy.
#ifndef SEMVQ_CORE_EVAL_VQA_ACCURACY_H_
#define SEMVQ_CORE_EVAL_VQA_ACCURACY_H_

#include "absl/strings/string_view.h"
#include "core/forward/batch.h"

namespace semvq {

// In [0, 1]. One annotator: 1 for the very answer. More: the official measure
// of VQA [Antol et al. 2015], the mean over the annotators of
// min(1, matches among the other ones / 3).
double VqaAccuracy(absl::string_view answer, const TextRecord& question);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_VQA_ACCURACY_H_
