#include "quantizers/random_projection/random_projection.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/code_history.h"
#include "core/quantize/codebook.h"
#include "core/quantize/dim.h"
#include "core/quantize/rows.h"
#include "core/random/stream.h"
#include "kernels/assign.h"

namespace semvq {
namespace {

class RandomProjection : public Quantizer {
 public:
  RandomProjection(const RandomProjectionConfig& config, std::string instance,
                   uint64_t seed, int64_t dim)
      : instance_(std::move(instance)),
        num_codes_(config.num_codes()),
        dim_(dim),
        counter_(this, config.num_codes(), config.usage_window()) {
    at::Generator generator = at::detail::createCPUGenerator(
        StreamKey(seed, absl::StrCat(instance_, "/random_projection")));
    projection_ = register_buffer(
        "projection",
        at::randn({dim, config.code_dim()}, generator) / std::sqrt(dim));
    codebook_ = register_buffer(
        "codebook",
        UnitVectors(at::randn({num_codes_, config.code_dim()}, generator)));
    vectors_ =
        register_buffer("vectors", at::matmul(codebook_, projection_.t()));
  }

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    c10::NoGradGuard no_grad;
    // Codes must not depend on whether the step runs in bfloat16.
    c10::impl::ExcludeDispatchKeyGuard no_autocast(
        c10::autocast_dispatch_keyset);
    const FeatureRows rows =
        ToRows(features, context, dim_, projection_.scalar_type(), instance_);
    const at::Tensor codes = AssignNearest(at::matmul(rows.z, projection_),
                                           codebook_, Metric::kCosine);
    const at::Tensor vectors = vectors_.index_select(0, codes);
    Quantized result = FromRows(features, rows, vectors, codes);
    if (context.mode == QuantizeMode::kTrain) {
      result.metrics = counter_.Count(codes, rows, context.step);
      result.metrics.emplace_back(
          "quantization_error",
          MeanOverRows(SquaredDistances(rows.z, vectors), rows));
      result.metrics.emplace_back("nonfinite", NonFiniteRows(rows));
      AverageOverRanks(rows.group, &result.metrics);
    }
    return result;
  }

  at::Tensor Lookup(const at::Tensor& codes) override {
    CheckCodes(codes, num_codes_, instance_);
    std::vector<int64_t> shape = codes.sizes().vec();
    shape.back() = dim_;
    return vectors_.index_select(0, codes.reshape({-1})).view(shape);
  }

  CodebookInfo info() const override {
    CodebookInfo info;
    info.codes_per_group = {num_codes_};
    info.dim = dim_;
    info.passes_gradient = false;
    info.idempotent = false;  // Its vectors are the codes taken back to D.
    return info;
  }

  NamedTensors CodeValues() const override { return counter_.CodeValues(); }

  absl::Status AfterStep(const QuantizeContext& context) override {
    counter_.AfterStep(context.step);
    return absl::OkStatus();
  }

 private:
  std::string instance_;
  int64_t num_codes_, dim_;
  CodeCounter counter_;
  at::Tensor projection_, codebook_, vectors_;
};

}  // namespace

absl::Status ValidateRandomProjection(const RandomProjectionConfig& config) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  FieldErrors errors;
  errors.Require(config.num_codes() >= 1 && config.num_codes() <= kMax,
                 "num_codes", config.num_codes(), "1 to 2147483647");
  errors.Require(config.code_dim() >= 1 && config.code_dim() <= kMax,
                 "code_dim", config.code_dim(), "1 to 2147483647");
  errors.Require(config.usage_window() >= 1 && config.usage_window() <= kMax,
                 "usage_window", config.usage_window(), "1 to 2147483647");
  return errors.status();
}

Contract RandomProjectionContract(const std::string& /*instance*/,
                                  const RandomProjectionConfig& config,
                                  const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeRandomProjection(
    const RandomProjectionConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  return std::make_shared<RandomProjection>(config, context.instance,
                                            context.seed, *dim);
}

}  // namespace semvq
