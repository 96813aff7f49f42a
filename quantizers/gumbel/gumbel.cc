#include "quantizers/gumbel/gumbel.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/nn/layers.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/draws.h"
#include "core/quantize/estimators.h"
#include "core/quantize/rows.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

class Gumbel : public CodebookQuantizer {
 public:
  Gumbel(const GumbelConfig& config, CodebookSpec spec)
      : CodebookQuantizer(std::move(spec)), config_(config) {
    const int64_t codes = this->spec().num_codes, dim = this->spec().dim;
    logits_ = register_module("logits", std::make_shared<Linear>(dim, codes));
    at::Generator generator = at::detail::createCPUGenerator(
        StreamKey(this->spec().seed,
                  absl::StrCat(this->spec().instance, "/gumbel/init")));
    codebook_ = register_parameter(
        "codebook", at::randn({codes, dim}, generator) / std::sqrt(dim));
  }

  CodebookInfo info() const override {
    CodebookInfo info = CodebookQuantizer::info();
    info.exact_lookup = config_.straight_through();
    info.idempotent = false;  // The logits are not distances to the vectors.
    return info;
  }

 private:
  at::Tensor Codes() const override { return codebook_; }

  at::Tensor Similarity(const at::Tensor& z,
                        const at::Tensor& /*codebook*/) const override {
    return logits_->Forward(z);
  }

  void Choose(const at::Tensor& features, const QuantizeContext& context,
              Coded* coded) const override {
    const at::Tensor& z = coded->rows.z;
    if (!coded->train && !z.requires_grad()) {
      coded->codes = MostSimilar(z, coded->codebook);
      return;
    }
    ChooseBy(Similarity(z, coded->codebook), Temperature(coded->step), "gumbel",
             features, context, coded);
  }

  at::Tensor Pass(const Coded& coded) const override {
    if (!coded.relaxed.defined()) return coded.vectors;
    if (coded.train && !config_.straight_through())
      return at::matmul(coded.relaxed, coded.codebook);
    return WithMixtureGradient(coded.vectors, coded.relaxed, coded.codebook);
  }

  NamedTensors Losses(const Coded& coded) const override {
    const double weight =
        CosineRamp(config_.kl_weight_start(), config_.kl_weight(),
                   config_.kl_weight_steps(), coded.step);
    return {{"kl", Kl(coded) * weight}};
  }

  void Report(const Coded& coded, NamedTensors* metrics) const override {
    const at::Tensor kl = Kl(coded);
    metrics->emplace_back("kl_nats", kl);
    metrics->emplace_back("temperature",
                          at::full({}, Temperature(coded.step), kl.options()));
  }

  // KL(q || uniform).
  at::Tensor Kl(const Coded& coded) const {
    return MeanOverRows(
        std::log(static_cast<double>(spec().num_codes)) - coded.entropy,
        coded.rows);
  }

  double Temperature(int64_t step) const {
    return CosineRamp(config_.temperature_start(), config_.temperature_end(),
                      config_.temperature_steps(), step);
  }

  // q is then the posterior of a mixture of Gaussians around the centres, of
  // the variance that the features have around theirs.
  void Start(const InitialCodes& initial) override {
    codebook_.copy_(initial.codes);
    const double dim = static_cast<double>(spec().dim);
    // Of features that are their own centres there is none: a thousandth of
    // the centres' size, or, where they are 0, 1.
    const at::Tensor size = initial.codes.square().sum(1).mean();
    at::Tensor variance =
        at::maximum(initial.spread, size * kLeastSpread) / dim;
    variance = at::where(variance > 0, variance, at::ones_like(variance));
    logits_->weight.copy_(initial.codes / variance);
    logits_->bias.copy_((logits_->weight * initial.codes).sum(1) / -2);
  }

  void Renew(const at::Tensor& /*revived*/,
             const at::Tensor& /*fresh*/) override {}

  static constexpr double kLeastSpread = 1e-3;
  const GumbelConfig config_;
  std::shared_ptr<Linear> logits_;
  at::Tensor codebook_;
};

CodebookUse Use() {
  CodebookUse use;
  use.metric = false;
  use.estimator = false;
  use.revival = false;
  return use;
}

}  // namespace

absl::Status ValidateGumbel(const GumbelConfig& config) {
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), Use(), &errors);
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
  return errors.status();
}

Contract GumbelContract(const std::string& /*instance*/,
                        const GumbelConfig& config,
                        const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes(), config.straight_through());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeGumbel(
    const GumbelConfig& config, const PluginContext& context) {
  CodebookOptions options = config.codebook();
  if (!options.has_init()) options.set_init(CodebookOptions::RANDOM);
  auto spec = MakeCodebookSpec("gumbel", config.num_codes(), options, context);
  if (!spec.ok()) return spec.status();
  spec->options.set_revive_after(0);
  spec->options.set_reservoir(1);
  return std::make_shared<Gumbel>(config, *std::move(spec));
}

}  // namespace semvq
