#include "quantizers/vq/vq.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook.h"
#include "core/quantize/estimators.h"
#include "core/quantize/rows.h"
#include "core/random/stream.h"
#include "kernels/assign.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

class Vq : public Quantizer {
 public:
  Vq(const VqConfig& config, std::string instance, uint64_t seed, int64_t dim)
      : config_(config),
        instance_(std::move(instance)),
        codes_(config.num_codes()),
        dim_(dim),
        metric_(config.metric() == VqConfig::COSINE ? Metric::kCosine
                                                    : Metric::kL2) {
    at::Generator generator =
        at::detail::createCPUGenerator(Key(seed, "init", 0));
    codebook_ = register_parameter(
        "codebook", at::randn({codes_, dim}, generator) / std::sqrt(dim));
    unused_ = register_buffer("unused", at::zeros({codes_}));
    initialised_ = register_buffer("initialised", at::zeros({}));
    history_ = register_module("history", std::make_shared<CodeHistory>(
                                              codes_, config.usage_window()));
    reservoir_ = register_module(
        "reservoir",
        std::make_shared<FeatureReservoir>(config.reservoir(), dim));
  }

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    FeatureRows rows =
        ToRows(features, context, dim_, codebook_.scalar_type(), instance_);
    if (metric_ == Metric::kCosine) rows.z = UnitVectors(rows.z);
    const bool train = context.mode == QuantizeMode::kTrain;
    if (train) Initialise(rows, context);

    const at::Tensor codebook = Codebook();
    const at::Tensor codes = AssignNearest(rows.z, codebook, metric_);
    const at::Tensor vectors = codebook.index_select(0, codes);
    Quantized result = FromRows(features, rows,
                                config_.estimator() == VqConfig::ROTATION
                                    ? RotationTrick(rows.z, vectors)
                                    : StraightThrough(rows.z, vectors),
                                codes);
    if (train) Train(rows, vectors, codes, context, &result);
    return result;
  }

  at::Tensor Lookup(const at::Tensor& codes) override {
    CheckCodes(codes, codes_, instance_);
    std::vector<int64_t> shape = codes.sizes().vec();
    shape.back() = dim_;
    return Codebook().index_select(0, codes.reshape({-1})).view(shape);
  }

  CodebookInfo info() const override {
    CodebookInfo info;
    info.codes_per_group = {codes_};
    info.dim = dim_;
    return info;
  }

  absl::Status AfterStep(const QuantizeContext& context) override {
    c10::NoGradGuard no_grad;
    const std::optional<CodeSums> pending = pending_.Take();
    if (!pending.has_value()) return absl::OkStatus();
    reservoir_->Commit(context.step);
    at::Tensor revived = at::zeros_like(unused_, at::kBool);
    if (config_.revive_after() > 0) {
      unused_.copy_(at::where(pending->counts > 0,
                              at::zeros({}, unused_.options()), unused_ + 1));
      revived = unused_ >= static_cast<double>(config_.revive_after());
      const at::Tensor fresh =
          reservoir_->Draw(revived, Key(context.seed, "revive", context.step));
      codebook_.copy_(at::where(revived.unsqueeze(1), fresh, codebook_));
      unused_.masked_fill_(revived, 0);
    }
    history_->Update(pending->counts, revived, context.step);
    return absl::OkStatus();
  }

 private:
  uint64_t Key(uint64_t seed, absl::string_view purpose, int64_t step) const {
    return StreamKey(seed, absl::StrCat(instance_, "/vq/", purpose),
                     static_cast<uint64_t>(step));
  }

  // The codes as they are compared and looked up, [K, D].
  at::Tensor Codebook() const {
    return metric_ == Metric::kCosine ? UnitVectors(codebook_) : codebook_;
  }

  // On the first training batch that has a usable feature.
  void Initialise(const FeatureRows& rows, const QuantizeContext& context) {
    // The host's copy spares a wait for the device; a codebook that was once
    // initialised stays so.
    if (known_initialised_ && !initialised_.is_cpu()) return;
    known_initialised_ = initialised_.item<double>() != 0;
    if (known_initialised_) return;
    c10::NoGradGuard no_grad;
    const at::Tensor points = rows.z.detach().index({rows.usable});
    if (points.size(0) == 0) return;
    const uint64_t key = Key(context.seed, "first batch", context.step);
    if (config_.init() == VqConfig::KMEANS) {
      codebook_.copy_(KMeansCodes(points, codes_, config_.kmeans_iterations(),
                                  config_.kmeans_samples(), metric_, key)
                          .codes);
    } else if (config_.init() == VqConfig::DATA) {
      codebook_.copy_(DataCodes(points, codes_, key).codes);
    }
    reservoir_->Fill(points, Mix64(key));
    initialised_.fill_(1);
    known_initialised_ = true;
  }

  // Losses, statistics and metrics of one training micro-step.
  void Train(const FeatureRows& rows, const at::Tensor& vectors,
             const at::Tensor& codes, const QuantizeContext& context,
             Quantized* result) {
    const auto mean = [&rows, this](const at::Tensor& a, const at::Tensor& b) {
      return MeanOverRows((a - b).square().sum(1), rows) /
             static_cast<double>(dim_);
    };
    const at::Tensor commitment = mean(rows.z, vectors.detach());
    result->losses = {{"codebook", mean(rows.z.detach(), vectors)},
                      {"commitment", commitment}};

    c10::NoGradGuard no_grad;
    CodeSums counts;
    counts.counts = Histogram(CountedCodes(codes, rows), codes_);
    reservoir_->Offer(rows.z, rows.usable, context.step,
                      Key(context.seed, "reservoir", context.step));
    result->metrics = history_->Metrics(counts.counts, context.step);
    result->metrics.emplace_back(
        "quantization_error", commitment.detach() * static_cast<double>(dim_));
    result->metrics.emplace_back("nonfinite", NonFiniteRows(rows));
    pending_.Add(std::move(counts), context.step);
  }

  VqConfig config_;
  std::string instance_;
  int64_t codes_, dim_;
  Metric metric_;
  at::Tensor codebook_;
  at::Tensor unused_;       // [K]: steps in a row without a feature.
  at::Tensor initialised_;  // Scalar, 0 or 1.
  bool known_initialised_ = false;
  std::shared_ptr<CodeHistory> history_;
  std::shared_ptr<FeatureReservoir> reservoir_;
  PendingStatistics pending_;
};

}  // namespace

absl::Status ValidateVq(const VqConfig& config) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  FieldErrors errors;
  errors.Require(config.num_codes() >= 1 && config.num_codes() <= kMax,
                 "num_codes", config.num_codes(), "1 to 2147483647");
  errors.Require(
      config.kmeans_iterations() >= 0 && config.kmeans_iterations() <= 10000,
      "kmeans_iterations", config.kmeans_iterations(), "0 to 10000");
  errors.Require(config.kmeans_samples() >= 0, "kmeans_samples",
                 config.kmeans_samples(), "0 (all features) or more");
  errors.Require(config.revive_after() >= 0, "revive_after",
                 config.revive_after(), "0 (never) or more steps");
  errors.Require(config.reservoir() >= 1 && config.reservoir() <= kMax,
                 "reservoir", config.reservoir(), "1 to 2147483647");
  errors.Require(config.usage_window() >= 1 && config.usage_window() <= kMax,
                 "usage_window", config.usage_window(), "1 to 2147483647");
  return errors.status();
}

Contract VqContract(const std::string& /*instance*/, const VqConfig& config,
                    const ContractBook& /*book*/) {
  Contract contract;
  contract.codes.codes_per_group = {config.num_codes()};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeVq(
    const VqConfig& config, const PluginContext& context) {
  const int64_t dim = context.book == nullptr
                          ? 0
                          : context.book->Dim(context.instance, kQuantized);
  if (dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the dimension of the features of quantizer \"",
                     context.instance, "\" is not known"));
  }
  return std::make_shared<Vq>(config, context.instance, context.seed, dim);
}

}  // namespace semvq
