// Quantizers that learn nothing: codes are the points of a fixed grid, so that
// a code is computed from the feature, and the vector from the code.
#ifndef SEMVQ_CORE_QUANTIZE_GRID_QUANTIZER_H_
#define SEMVQ_CORE_QUANTIZE_GRID_QUANTIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/code_history.h"
#include "core/quantize/codebook.h"
#include "core/quantize/rows.h"

namespace semvq {

class GridQuantizer : public Quantizer {
 public:
  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) final;
  at::Tensor Lookup(const at::Tensor& codes) final;
  CodebookInfo info() const override;
  NamedTensors CodeValues() const final { return counter_.CodeValues(); }
  absl::Status AfterStep(const QuantizeContext& context) final;

 protected:
  // A batch's rows, rounded.
  struct Rounded {
    at::Tensor bounded;  // [M, D]: what is rounded, with the gradient that the
                         // vectors get by straight-through.
    at::Tensor codes;    // int64 [M], in range whatever the features are.
  };

  // Registers the buffers unit (a scalar 1, whose dtype and device are the
  // vectors') and history.*.
  GridQuantizer(std::string instance, int64_t num_codes, int64_t dim,
                int64_t usage_window);

  virtual Rounded Round(const at::Tensor& z) const = 0;
  // The points of codes int64 [M], [M, D] in the dtype of unit().
  virtual at::Tensor Points(const at::Tensor& codes) const = 0;
  // Named, unweighted losses of a training batch. `metrics` may be added to.
  virtual NamedTensors Losses(const FeatureRows& rows, const Rounded& rounded,
                              const at::Tensor& points,
                              NamedTensors* metrics) const = 0;

  const at::Tensor& unit() const { return unit_; }
  int64_t dim() const { return dim_; }

 private:
  std::string instance_;
  int64_t codes_, dim_;
  at::Tensor unit_;
  CodeCounter counter_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_GRID_QUANTIZER_H_
