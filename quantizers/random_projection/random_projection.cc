#include "quantizers/random_projection/random_projection.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/code_metrics.h"
#include "core/quantize/codebook.h"
#include "core/random/stream.h"
#include "kernels/assign.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

class RandomProjection : public Quantizer {
 public:
  RandomProjection(const RandomProjectionConfig& config, std::string instance,
                   uint64_t seed, int64_t dim)
      : instance_(std::move(instance)),
        num_codes_(config.num_codes()),
        dim_(dim) {
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
    TORCH_CHECK(features.dim() == 3 && features.size(2) == dim_, "quantizer ",
                instance_, ": expected features [B, N, ", dim_, "], got ",
                features.sizes());
    c10::NoGradGuard no_grad;
    // Codes must not depend on whether the step runs in bfloat16.
    c10::impl::ExcludeDispatchKeyGuard no_autocast(
        c10::autocast_dispatch_keyset);
    const at::Tensor z =
        features.detach().to(projection_.scalar_type()).reshape({-1, dim_});
    at::Tensor codes =
        AssignNearest(at::matmul(z, projection_), codebook_, Metric::kCosine);
    at::Tensor vectors = vectors_.index_select(0, codes);
    if (context.valid.defined()) {
      const at::Tensor valid = context.valid.reshape({-1});
      codes = at::where(valid, codes, at::full({}, -1, codes.options()));
      vectors = at::where(valid.unsqueeze(1), vectors,
                          at::zeros({}, vectors.options()));
    }

    Quantized result;
    result.codes = codes.view({features.size(0), features.size(1), 1});
    result.vectors = vectors.view(features.sizes());
    if (context.mode == QuantizeMode::kTrain) {
      const at::Tensor histogram = Histogram(codes, num_codes_);
      result.metrics = {{"perplexity", Perplexity(histogram)},
                        {"batch_usage", UsedShare(histogram)}};
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

 private:
  std::string instance_;
  int64_t num_codes_, dim_;
  at::Tensor projection_, codebook_, vectors_;
};

}  // namespace

absl::Status ValidateRandomProjection(const RandomProjectionConfig& config) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  std::vector<std::string> errors;
  if (config.num_codes() < 1 || config.num_codes() > kMax) {
    errors.push_back(absl::StrCat("num_codes: got ", config.num_codes(),
                                  ", expected 1 to ", kMax));
  }
  if (config.code_dim() < 1 || config.code_dim() > kMax) {
    errors.push_back(absl::StrCat("code_dim: got ", config.code_dim(),
                                  ", expected 1 to ", kMax));
  }
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract RandomProjectionContract(const std::string& /*instance*/,
                                  const RandomProjectionConfig& config,
                                  const ContractBook& /*book*/) {
  Contract contract;
  contract.codes.codes_per_group = {config.num_codes()};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeRandomProjection(
    const RandomProjectionConfig& config, const PluginContext& context) {
  const int64_t dim = context.book == nullptr
                          ? 0
                          : context.book->Dim(context.instance, kQuantized);
  if (dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the dimension of the features of quantizer \"",
                     context.instance, "\" is not known"));
  }
  return std::make_shared<RandomProjection>(config, context.instance,
                                            context.seed, dim);
}

}  // namespace semvq
