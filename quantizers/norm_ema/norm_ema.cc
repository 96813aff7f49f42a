#include "quantizers/norm_ema/norm_ema.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/ema_codebook.h"

namespace semvq {
namespace {

class NormEma : public CodebookQuantizer {
 public:
  NormEma(CodebookSpec spec, double decay, bool decay_warmup)
      : CodebookQuantizer(std::move(spec)),
        decay_(decay),
        decay_warmup_(decay_warmup) {
    codebook_ = register_buffer("codebook", UnitVectors(RandomCodes()));
    steps_ = register_buffer(
        "steps", at::full({codebook_.size(0)}, StepsOfFullDecay(decay)));
  }

 private:
  at::Tensor Codes() const override { return codebook_; }

  NamedTensors Losses(const Coded& coded) const override {
    return {{"commitment", coded.error / static_cast<double>(spec().dim)}};
  }

  void Start(const InitialCodes& initial) override {
    codebook_.copy_(UnitVectors(initial.codes));
    if (decay_warmup_) steps_.zero_();
  }

  bool needs_sums() const override { return true; }

  void Gather(const CodeSums& step) override {
    // A sum has its mean's direction.
    const at::Tensor to = UnitVectors(step.sums.to(codebook_.scalar_type()));
    const at::Tensor decay = WarmDecay(steps_, decay_).unsqueeze(1);
    const at::Tensor moved = UnitVectors(codebook_ * decay + to * (1 - decay));
    const at::Tensor used = step.counts > 0;
    codebook_.copy_(at::where(used.unsqueeze(1), moved, codebook_));
    steps_.add_(used.to(steps_.scalar_type()));
  }

  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override {
    if (!fresh.defined()) return;
    codebook_.copy_(at::where(revived.unsqueeze(1), fresh, codebook_));
    if (decay_warmup_) steps_.masked_fill_(revived, 0);
  }

  const double decay_;
  const bool decay_warmup_;
  at::Tensor codebook_;
  // [K]: steps in which a code had features since it became a feature or a
  // centre of some.
  at::Tensor steps_;
};

}  // namespace

absl::Status ValidateNormEma(const NormEmaConfig& config) {
  CodebookUse use;
  use.metric = false;
  use.code_gradient = false;
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), use, &errors);
  errors.Require(config.decay() >= 0 && config.decay() < 1, "decay",
                 config.decay(), "at least 0 and below 1");
  return errors.status();
}

Contract NormEmaContract(const std::string& /*instance*/,
                         const NormEmaConfig& config,
                         const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeNormEma(
    const NormEmaConfig& config, const PluginContext& context) {
  auto spec = MakeCodebookSpec("norm_ema", config.num_codes(),
                               config.codebook(), context);
  if (!spec.ok()) return spec.status();
  spec->metric = Metric::kCosine;
  return std::make_shared<NormEma>(*std::move(spec), config.decay(),
                                   config.decay_warmup());
}

}  // namespace semvq
