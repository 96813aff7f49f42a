#include "quantizers/gumbel/gumbel.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/distributed/communicator.h"
#include "core/nn/layers.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/code_history.h"
#include "core/quantize/codebook.h"
#include "core/quantize/dim.h"
#include "core/quantize/estimators.h"
#include "core/quantize/rows.h"
#include "core/random/keyed.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

class Gumbel : public Quantizer {
 public:
  Gumbel(const GumbelConfig& config, std::string instance, uint64_t seed,
         int64_t dim)
      : config_(config),
        instance_(std::move(instance)),
        codes_(config.num_codes()),
        dim_(dim),
        counter_(this, config.num_codes(), config.usage_window()) {
    logits_ = register_module("logits", std::make_shared<Linear>(dim, codes_));
    at::Generator generator = at::detail::createCPUGenerator(
        StreamKey(seed, absl::StrCat(instance_, "/gumbel/init")));
    codebook_ = register_parameter(
        "codebook", at::randn({codes_, dim}, generator) / std::sqrt(dim));
  }

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    // Codes must not depend on whether the step runs in bfloat16.
    c10::impl::ExcludeDispatchKeyGuard no_autocast(
        c10::autocast_dispatch_keyset);
    const FeatureRows rows =
        ToRows(features, context, dim_, codebook_.scalar_type(), instance_);
    const bool train = context.mode == QuantizeMode::kTrain;
    const double temperature =
        CosineRamp(config_.temperature_start(), config_.temperature_end(),
                   config_.temperature_steps(), context.step);
    const at::Tensor logits = logits_->Forward(rows.z);
    const at::Tensor noisy =
        train ? logits + Noise(features, context).to(logits) : logits;
    const at::Tensor relaxed = at::softmax(noisy / temperature, -1);
    const at::Tensor codes = noisy.detach().argmax(-1);

    at::Tensor vectors;
    if (train && !config_.straight_through()) {
      vectors = at::matmul(relaxed, codebook_);
    } else {
      vectors = WithMixtureGradient(codebook_.index_select(0, codes), relaxed,
                                    codebook_);
    }
    Quantized result = FromRows(features, rows, vectors, codes);
    if (train) {
      Train(features, rows, logits, codes, temperature, context, &result);
      c10::NoGradGuard no_grad;
      result.metrics.emplace_back(
          "quantization_error",
          MeanOverRows((rows.z - vectors).square().sum(1), rows));
      AverageOverRanks(rows.group, &result.metrics);
    }
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
    info.exact_lookup = config_.straight_through();
    info.idempotent = false;  // The logits are not distances to the vectors.
    return info;
  }

  NamedTensors CodeValues() const override { return counter_.CodeValues(); }

  absl::Status AfterStep(const QuantizeContext& context) override {
    counter_.AfterStep(context.step);
    return absl::OkStatus();
  }

 private:
  // Gumbel noise float64 [M, K].
  at::Tensor Noise(const at::Tensor& features,
                   const QuantizeContext& context) const {
    const int64_t batch = features.size(0), positions = features.size(1);
    std::vector<uint64_t> rows = context.draw_keys;
    TORCH_CHECK(rows.empty() || static_cast<int64_t>(rows.size()) == batch,
                "quantizer ", instance_, ": ", rows.size(), " draw keys for ",
                batch, " images");
    // Without keys, by the place in the batch of all ranks.
    const int64_t first =
        context.group == nullptr ? 0 : context.group->rank() * batch;
    for (int64_t b = static_cast<int64_t>(rows.size()); b < batch; ++b) {
      rows.push_back(
          Mix64(Mix64(context.step) ^ static_cast<uint64_t>(first + b)));
    }
    std::vector<uint64_t> columns(positions * codes_);
    std::iota(columns.begin(), columns.end(), uint64_t{0});
    return KeyedGumbel(context.seed, absl::StrCat(instance_, "/gumbel"), rows,
                       columns)
        .view({batch * positions, codes_});
  }

  // Loss, q, statistics and metrics of one training micro-step.
  void Train(const at::Tensor& features, const FeatureRows& rows,
             const at::Tensor& logits, const at::Tensor& codes,
             double temperature, const QuantizeContext& context,
             Quantized* result) {
    const at::Tensor log_q = at::log_softmax(logits, -1);
    at::Tensor q = log_q.exp();
    at::Tensor entropy = -(q * log_q).sum(-1);
    const at::Tensor kl =
        MeanOverRows(std::log(static_cast<double>(codes_)) - entropy, rows);
    const double weight =
        CosineRamp(config_.kl_weight_start(), config_.kl_weight(),
                   config_.kl_weight_steps(), context.step);
    result->losses = {{"kl", kl * weight}};
    if (rows.valid.defined()) {
      const at::Tensor zero = at::zeros({}, q.options());
      q = at::where(rows.valid.unsqueeze(1), q, zero);
      entropy = at::where(rows.valid, entropy, zero);
    }
    const int64_t batch = features.size(0), positions = features.size(1);
    result->assignment = q.view({batch, positions, codes_});
    result->entropy = entropy.view({batch, positions});

    c10::NoGradGuard no_grad;
    result->metrics = counter_.Count(codes, rows, context.step);
    result->metrics.emplace_back("kl_nats", kl.detach());
    result->metrics.emplace_back("temperature",
                                 at::full({}, temperature, kl.options()));
    result->metrics.emplace_back("nonfinite", NonFiniteRows(rows));
  }

  GumbelConfig config_;
  std::string instance_;
  int64_t codes_, dim_;
  std::shared_ptr<Linear> logits_;
  at::Tensor codebook_;
  CodeCounter counter_;
};

}  // namespace

double CosineRamp(double start, double end, int64_t steps, int64_t step) {
  if (step >= steps) return end;
  const double progress =
      static_cast<double>(step) / static_cast<double>(steps);
  return end + (start - end) * 0.5 * (1 + std::cos(M_PI * progress));
}

absl::Status ValidateGumbel(const GumbelConfig& config) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  FieldErrors errors;
  errors.Require(config.num_codes() >= 1 && config.num_codes() <= kMax,
                 "num_codes", config.num_codes(), "1 to 2147483647");
  const auto temperature = [&errors](const char* field, double value) {
    errors.Require(value >= 1e-4 && value <= 1e4, field, value,
                   "0.0001 to 10000");
  };
  temperature("temperature_start", config.temperature_start());
  temperature("temperature_end", config.temperature_end());
  const auto weight = [&errors](const char* field, double value) {
    errors.Require(value >= 0 && value <= 1e6, field, value, "0 to 1000000");
  };
  weight("kl_weight_start", config.kl_weight_start());
  weight("kl_weight", config.kl_weight());
  errors.Require(config.temperature_steps() >= 0, "temperature_steps",
                 config.temperature_steps(), "0 (at once) or more");
  errors.Require(config.kl_weight_steps() >= 0, "kl_weight_steps",
                 config.kl_weight_steps(), "0 (at once) or more");
  errors.Require(config.usage_window() >= 1 && config.usage_window() <= kMax,
                 "usage_window", config.usage_window(), "1 to 2147483647");
  return errors.status();
}

Contract GumbelContract(const std::string& /*instance*/,
                        const GumbelConfig& config,
                        const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes(), config.straight_through());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeGumbel(
    const GumbelConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  return std::make_shared<Gumbel>(config, context.instance, context.seed, *dim);
}

}  // namespace semvq
