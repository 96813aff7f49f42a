// Finds where values that are not finite come from (--debug_nonfinite).
#ifndef SEMVQ_TRAINER_NONFINITE_H_
#define SEMVQ_TRAINER_NONFINITE_H_

#include <string>

#include "core/forward/batch.h"
#include "core/forward/forward.h"
#include "trainer/model.h"

namespace semvq {

// Computes the losses and gradients of one micro-batch again and says what is
// not finite first, in the order in which it all comes about: parameters and
// buffers, the batch, every view, the losses; then, against that order, the
// gradients at the views, and those of the parameters. Empty when all is
// finite.
//
//   view fusion/fused[text_mask=mlm] [8,12,32]: 384 of 3072 values, the first
//   in row 2
//
// The caller has keyed the default generators as for the step itself. The
// gradients of the model's parameters are lost, and `batch` is on the device.
// With `options.group` all ranks call it for the same micro-batches.
std::string FindNonFinite(Model& model, const Providers* teacher,
                          const Batch& batch, const ForwardOptions& options,
                          bool bf16);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_NONFINITE_H_
