#include "quantizers/vq_ema/vq_ema.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook.h"
#include "core/quantize/estimators.h"
#include "core/quantize/rows.h"
#include "core/random/stream.h"
#include "kernels/assign.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

class VqEma : public Quantizer {
 public:
  VqEma(const VqEmaConfig& config, std::string instance, uint64_t seed,
        int64_t dim)
      : config_(config),
        instance_(std::move(instance)),
        codes_(config.num_codes()),
        dim_(dim),
        metric_(config.metric() == VqEmaConfig::COSINE ? Metric::kCosine
                                                       : Metric::kL2) {
    at::Generator generator =
        at::detail::createCPUGenerator(Key(seed, "init", 0));
    at::Tensor codes = at::randn({codes_, dim}, generator) / std::sqrt(dim);
    if (metric_ == Metric::kCosine) codes = UnitVectors(codes);
    codebook_ = register_buffer("codebook", codes);
    ema_count_ = register_buffer("ema_count", at::ones({codes_}));
    ema_sum_ = register_buffer("ema_sum", codes.clone());
    starved_ = register_buffer("starved", at::zeros({codes_}));
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

    const at::Tensor codes = AssignNearest(rows.z, codebook_, metric_);
    const at::Tensor vectors = codebook_.index_select(0, codes);
    Quantized result = FromRows(features, rows,
                                config_.estimator() == VqEmaConfig::ROTATION
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
    return codebook_.index_select(0, codes.reshape({-1})).view(shape);
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
    const double g = config_.decay();
    const at::ScalarType type = codebook_.scalar_type();
    ema_count_.mul_(g).add_(pending->counts.to(type), 1 - g);
    ema_sum_.mul_(g).add_(pending->sums.to(type), 1 - g);
    reservoir_->Commit(context.step);

    at::Tensor revived = at::zeros_like(ema_count_, at::kBool);
    at::Tensor fresh;
    if (config_.revive_after() > 0) {
      const at::Tensor floor = ema_count_.mean() * config_.revive_threshold();
      starved_.copy_(at::where(ema_count_ < floor, starved_ + 1,
                               at::zeros({}, starved_.options())));
      revived = starved_ >= static_cast<double>(config_.revive_after());
      fresh =
          reservoir_->Draw(revived, Key(context.seed, "revive", context.step));
      ema_count_.copy_(at::where(revived, floor, ema_count_));
      ema_sum_.copy_(at::where(revived.unsqueeze(1), fresh * floor, ema_sum_));
      starved_.masked_fill_(revived, 0);
    }

    // All counts can only be 0 after very long without a valid feature.
    const at::Tensor smoothed =
        SmoothedCounts(ema_count_, config_.epsilon())
            .clamp_min(std::numeric_limits<float>::min());
    at::Tensor codes = ema_sum_ / smoothed.unsqueeze(1);
    if (metric_ == Metric::kCosine) codes = UnitVectors(codes);
    if (fresh.defined()) codes = at::where(revived.unsqueeze(1), fresh, codes);
    codebook_.copy_(codes);
    history_->Update(pending->counts, revived, context.step);
    return absl::OkStatus();
  }

 private:
  uint64_t Key(uint64_t seed, absl::string_view purpose, int64_t step) const {
    return StreamKey(seed, absl::StrCat(instance_, "/vq_ema/", purpose),
                     static_cast<uint64_t>(step));
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
    if (config_.init() != VqEmaConfig::RANDOM) {
      const InitialCodes initial =
          config_.init() == VqEmaConfig::KMEANS
              ? KMeansCodes(points, codes_, config_.kmeans_iterations(),
                            config_.kmeans_samples(), metric_, key)
              : DataCodes(points, codes_, key);
      codebook_.copy_(initial.codes);
      ema_count_.copy_(initial.counts);
      ema_sum_.copy_(initial.codes * initial.counts.unsqueeze(1));
    }
    reservoir_->Fill(points, Mix64(key));
    initialised_.fill_(1);
    known_initialised_ = true;
  }

  // Loss, statistics and metrics of one training micro-step.
  void Train(const FeatureRows& rows, const at::Tensor& vectors,
             const at::Tensor& codes, const QuantizeContext& context,
             Quantized* result) {
    const at::Tensor error =
        MeanOverRows((rows.z - vectors).square().sum(1), rows);
    result->losses.emplace_back("commitment",
                                error / static_cast<double>(dim_));

    c10::NoGradGuard no_grad;
    // Features that are not finite would spoil the averages for good.
    CodeSums sums = CodeStatistics(rows.z, CountedCodes(codes, rows), codes_);
    reservoir_->Offer(rows.z, rows.usable, context.step,
                      Key(context.seed, "reservoir", context.step));
    result->metrics = history_->Metrics(sums.counts, context.step);
    result->metrics.emplace_back("quantization_error", error.detach());
    result->metrics.emplace_back("nonfinite", NonFiniteRows(rows));
    pending_.Add(std::move(sums), context.step);
  }

  VqEmaConfig config_;
  std::string instance_;
  int64_t codes_, dim_;
  Metric metric_;
  at::Tensor codebook_, ema_count_, ema_sum_;
  at::Tensor starved_;      // [K]: steps in a row below the threshold.
  at::Tensor initialised_;  // Scalar, 0 or 1.
  bool known_initialised_ = false;
  std::shared_ptr<CodeHistory> history_;
  std::shared_ptr<FeatureReservoir> reservoir_;
  PendingStatistics pending_;
};

}  // namespace

absl::Status ValidateVqEma(const VqEmaConfig& config) {
  std::vector<std::string> errors;
  const auto expect = [&errors](bool ok, absl::string_view field, auto got,
                                absl::string_view expected) {
    if (!ok)
      errors.push_back(
          absl::StrCat(field, ": got ", got, ", expected ", expected));
  };
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  expect(config.num_codes() >= 1 && config.num_codes() <= kMax, "num_codes",
         config.num_codes(), "1 to 2147483647");
  expect(config.decay() >= 0 && config.decay() < 1, "decay", config.decay(),
         "at least 0 and below 1");
  expect(config.epsilon() > 0 && std::isfinite(config.epsilon()), "epsilon",
         config.epsilon(), "a positive number");
  expect(config.kmeans_iterations() >= 0 && config.kmeans_iterations() <= 10000,
         "kmeans_iterations", config.kmeans_iterations(), "0 to 10000");
  expect(config.kmeans_samples() >= 0, "kmeans_samples",
         config.kmeans_samples(), "0 (all features) or more");
  expect(
      config.revive_threshold() > 0 && config.revive_threshold() < 1,
      "revive_threshold", config.revive_threshold(),
      "a share of the mean count, above 0 and below 1 (revive_after: 0 turns "
      "revival off)");
  expect(config.revive_after() >= 0, "revive_after", config.revive_after(),
         "0 (never) or more steps");
  expect(config.reservoir() >= 1 && config.reservoir() <= kMax, "reservoir",
         config.reservoir(), "1 to 2147483647");
  expect(config.usage_window() >= 1 && config.usage_window() <= kMax,
         "usage_window", config.usage_window(), "1 to 2147483647");
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract VqEmaContract(const std::string& /*instance*/,
                       const VqEmaConfig& config,
                       const ContractBook& /*book*/) {
  Contract contract;
  contract.codes.codes_per_group = {config.num_codes()};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeVqEma(
    const VqEmaConfig& config, const PluginContext& context) {
  const int64_t dim = context.book == nullptr
                          ? 0
                          : context.book->Dim(context.instance, kQuantized);
  if (dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the dimension of the features of quantizer \"",
                     context.instance, "\" is not known"));
  }
  return std::make_shared<VqEma>(config, context.instance, context.seed, dim);
}

}  // namespace semvq
