#include "quantizers/soho/soho.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/ema_codebook.h"

namespace semvq {
namespace {

class Soho : public EmaCodebookQuantizer {
 public:
  using EmaCodebookQuantizer::EmaCodebookQuantizer;

  CodebookInfo info() const override {
    CodebookInfo info = CodebookQuantizer::info();
    info.exact_lookup = false;  // A training batch sees the next codes.
    return info;
  }

 private:
  NamedTensors Losses(const Coded& /*coded*/) const override { return {}; }

  at::Tensor LookupCodes(const at::Tensor& /*codebook*/,
                         const CodeSums& sums) const override {
    return CodesAfter(sums);
  }
};

EmaOptions Ema(const SohoConfig& config) {
  return {config.decay(), config.epsilon(), config.revive_threshold()};
}

}  // namespace

absl::Status ValidateSoho(const SohoConfig& config) {
  CodebookUse use;
  use.code_gradient = false;
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), use, &errors);
  CheckEma(Ema(config), &errors);
  return errors.status();
}

Contract SohoContract(const std::string& /*instance*/, const SohoConfig& config,
                      const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes(), /*exact_lookup=*/false);
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeSoho(
    const SohoConfig& config, const PluginContext& context) {
  auto spec =
      MakeCodebookSpec("soho", config.num_codes(), config.codebook(), context);
  if (!spec.ok()) return spec.status();
  return std::make_shared<Soho>(*std::move(spec), Ema(config));
}

}  // namespace semvq
