// Upkeep of a learned codebook: initialisation, statistics over micro-steps and
// ranks, and the reservoir that dead codes are revived from. All state is in
// buffers; what is pending within an optimizer step is not.
#ifndef SEMVQ_CORE_QUANTIZE_CODEBOOK_H_
#define SEMVQ_CORE_QUANTIZE_CODEBOOK_H_

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/distributed/communicator.h"
#include "core/distributed/sharded_rows.h"
#include "kernels/kmeans.h"
#include "kernels/scatter.h"

namespace semvq {

// x / |x| over the last dimension; zero vectors stay zero. Differentiable.
at::Tensor UnitVectors(const at::Tensor& x);

// Laplace-smoothed counts (N + eps) / (sum N + K eps) * sum N of N [K]: the
// divisor of VQ-EMA's sums (van den Oord et al. 2017, appendix A.1).
at::Tensor SmoothedCounts(const at::Tensor& counts, double epsilon);

// Throws c10::Error, naming the quantizer, unless codes are int64 [..., 1] in
// [0, num_codes). Waits for the device: not for the training step.
void CheckCodes(const at::Tensor& codes, int64_t num_codes,
                const std::string& quantizer);

struct InitialCodes {
  at::Tensor codes;  // [K, D]
  at::Tensor
      counts;  // [K], same dtype: features a code stands for, at least 1.
  at::Tensor spread;  // Scalar: mean squared distance of a feature to its code.
};

// Codes from features [n, D] of all ranks (n >= 1, finite): k-means centres, or
// features drawn without replacement while they last. At most `samples` of them
// (0: all) are used; counts are scaled to n. `key` is a StreamKey. Collective.
InitialCodes KMeansCodes(const ShardedRows& features, int64_t num_codes,
                         int64_t iterations, int64_t samples, Metric metric,
                         uint64_t key);
InitialCodes DataCodes(const ShardedRows& features, int64_t num_codes,
                       uint64_t key);

// The statistics of all ranks' batches (null: these). Collective.
CodeSums SumOverRanks(CodeSums own, Communicator* group);

// Sums of CodeStatistics over the micro-steps of one optimizer step; of the
// counts alone where the sums are undefined.
class PendingStatistics {
 public:
  // Statistics of another step than `step` that were never taken (the step was
  // skipped) are dropped.
  void Add(CodeSums sums, int64_t step);
  // What was gathered, and nothing from then on.
  std::optional<CodeSums> Take();
  // What was gathered so far; null: nothing.
  const CodeSums* sums() const { return sums_ ? &*sums_ : nullptr; }

 private:
  std::optional<CodeSums> sums_;
  int64_t step_ = 0;
};

// Recent features that a dead code may become.
class FeatureReservoir : public torch::nn::Module {
 public:
  FeatureReservoir(int64_t rows, int64_t dim);

  // Fills all rows from features [n, D] of all ranks, n >= 1. Collective.
  void Fill(const ShardedRows& features, uint64_t key);
  // Draws an eighth of the reservoir's rows from features [M, D] of each rank
  // of `group` (null: this one alone), of which those with usable [M] may
  // enter; they replace the oldest rows at Commit. Offers of another step that
  // were never committed are dropped. Collective.
  void Offer(const at::Tensor& features, const at::Tensor& usable, int64_t step,
             uint64_t key, Communicator* group = nullptr);
  void Commit(int64_t step);
  // One row for each of wanted bool [K], [K, D]; rows repeat only when more are
  // wanted than there are. What is not wanted holds an arbitrary row.
  at::Tensor Draw(const at::Tensor& wanted, uint64_t key) const;

  at::ScalarType scalar_type() const { return rows_.scalar_type(); }

 private:
  int64_t EighthOfRows() const;

  at::Tensor rows_;                                        // [R, D]
  std::vector<std::pair<at::Tensor, at::Tensor>> offers_;  // features, usable
  int64_t offers_step_ = 0;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_CODEBOOK_H_
