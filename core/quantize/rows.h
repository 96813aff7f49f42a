// A quantizer's input as rows, and its results as the contract wants them.
#ifndef SEMVQ_CORE_QUANTIZE_ROWS_H_
#define SEMVQ_CORE_QUANTIZE_ROWS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "core/distributed/communicator.h"
#include "core/forward/types.h"
#include "core/plugin/quantizer.h"

namespace semvq {

struct FeatureRows {
  at::Tensor z;       // [M, D], M = B * N, with gradient; 0 where not valid.
  at::Tensor valid;   // bool [M]; undefined: all.
  at::Tensor usable;  // bool [M]: valid and finite. Only these may enter
                      // statistics that last.
  // In training, the ranks whose rows are one batch; null: this one alone.
  Communicator* group = nullptr;
  at::Tensor count;  // With a group and `valid`: the valid rows of all ranks,
                     // at least 1, divided by the number of ranks; a scalar.
};

// features [B, N, dim] in the codebook's dtype `type` (under autocast they come
// in bfloat16). Throws c10::Error, naming the quantizer, on other shapes.
// Collective in kTrain.
FeatureRows ToRows(const at::Tensor& features, const QuantizeContext& context,
                   int64_t dim, at::ScalarType type,
                   const std::string& quantizer);

// vectors [M, D] and codes [M] as [B, N, D] and [B, N, 1]: 0 and -1 where not
// valid. `features` tells the shape.
Quantized FromRows(const at::Tensor& features, const FeatureRows& rows,
                   const at::Tensor& vectors, const at::Tensor& codes);

// |z - v|^2 of each row of z and v [M, D], [M], with a gradient to z alone. The
// differences are not kept for it.
at::Tensor SquaredDistances(const at::Tensor& z, const at::Tensor& v);

// Sum over the valid rows of values [M, ...], divided by their number; 0 when
// none is valid. With a group that is the number of all ranks' valid rows for a
// rank, so that the mean of the ranks' results is the mean over all their rows.
at::Tensor MeanOverRows(const at::Tensor& values, const FeatureRows& rows);

// The divisor of MeanOverRows for such values, a scalar of their dtype.
at::Tensor RowCount(const at::Tensor& values, const FeatureRows& rows);

// Codes of the usable rows, -1 elsewhere: what statistics count. [M].
at::Tensor CountedCodes(const at::Tensor& codes, const FeatureRows& rows);

// Valid rows with NaN or infinity, of all ranks, a float scalar.
at::Tensor NonFiniteRows(const FeatureRows& rows);

// Makes metrics of this rank's rows those of all ranks' rows: their means over
// the ranks, by one collective. Those that are the same everywhere stay so.
void AverageOverRanks(Communicator* group, NamedTensors* metrics);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_ROWS_H_
