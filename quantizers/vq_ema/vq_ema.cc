#include "quantizers/vq_ema/vq_ema.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/ema_codebook.h"

namespace semvq {
namespace {

class VqEma : public EmaCodebookQuantizer {
 public:
  using EmaCodebookQuantizer::EmaCodebookQuantizer;

 private:
  NamedTensors Losses(const Coded& coded) const override {
    return {{"commitment", coded.error / static_cast<double>(spec().dim)}};
  }
};

EmaOptions Ema(const VqEmaConfig& config) {
  return {config.decay(), config.epsilon(), config.revive_threshold(),
          config.decay_warmup()};
}

}  // namespace

absl::Status ValidateVqEma(const VqEmaConfig& config) {
  CodebookUse use;
  use.code_gradient = false;
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), use, &errors);
  CheckEma(Ema(config), &errors);
  return errors.status();
}

Contract VqEmaContract(const std::string& /*instance*/,
                       const VqEmaConfig& config,
                       const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeVqEma(
    const VqEmaConfig& config, const PluginContext& context) {
  auto spec = MakeCodebookSpec("vq_ema", config.num_codes(), config.codebook(),
                               context);
  if (!spec.ok()) return spec.status();
  return std::make_shared<VqEma>(*std::move(spec), Ema(config));
}

}  // namespace semvq
