#include "quantizers/norm_ema/norm_ema.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"

namespace semvq {
namespace {

class NormEma : public CodebookQuantizer {
 public:
  NormEma(CodebookSpec spec, double decay)
      : CodebookQuantizer(std::move(spec)), decay_(decay) {
    codebook_ = register_buffer("codebook", UnitVectors(RandomCodes()));
  }

 private:
  at::Tensor Codes() const override { return codebook_; }

  NamedTensors Losses(const Coded& coded) const override {
    return {{"commitment", coded.error / static_cast<double>(spec().dim)}};
  }

  void Start(const InitialCodes& initial) override {
    codebook_.copy_(UnitVectors(initial.codes));
  }

  bool needs_sums() const override { return true; }

  void Gather(const CodeSums& step) override {
    // A sum has its mean's direction.
    const at::Tensor to = UnitVectors(step.sums.to(codebook_.scalar_type()));
    const at::Tensor moved =
        UnitVectors(codebook_ * decay_ + to * (1 - decay_));
    codebook_.copy_(
        at::where((step.counts > 0).unsqueeze(1), moved, codebook_));
  }

  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override {
    if (!fresh.defined()) return;
    codebook_.copy_(at::where(revived.unsqueeze(1), fresh, codebook_));
  }

  const double decay_;
  at::Tensor codebook_;
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
  return std::make_shared<NormEma>(*std::move(spec), config.decay());
}

}  // namespace semvq
