// Information measures of a table of joint counts.
#ifndef SEMVQ_CORE_EVAL_INFORMATION_H_
#define SEMVQ_CORE_EVAL_INFORMATION_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// Mutual information over the geometric mean of both entropies, in [0, 1], of a
// table of non-negative weights (float [A, B], any sum > 0); 0 when one of the
// variables is constant.
double NormalizedMutualInformation(const at::Tensor& joint);

// The share of the weight that each row has in its heaviest column, in [0, 1]:
// how often one would be right to say of everything in a cluster (a row) what
// most in it are. 0 for an empty table.
double Purity(const at::Tensor& joint);

}  // namespace semvq

#endif  // SEMVQ_CORE_EVAL_INFORMATION_H_
