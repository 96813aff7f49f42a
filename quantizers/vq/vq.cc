#include "quantizers/vq/vq.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"

namespace semvq {
namespace {

class Vq : public CodebookQuantizer {
 public:
  explicit Vq(CodebookSpec spec) : CodebookQuantizer(std::move(spec)) {
    codebook_ = register_parameter("codebook", RandomCodes());
  }

 private:
  at::Tensor Codes() const override {
    return spec().metric == Metric::kCosine ? UnitVectors(codebook_)
                                            : codebook_;
  }

  NamedTensors Losses(const Coded& coded) const override {
    return {
        {"codebook", MeanSquare(coded, coded.rows.z.detach(), coded.vectors)},
        {"commitment", coded.error / static_cast<double>(spec().dim)}};
  }

  void Start(const InitialCodes& initial) override {
    codebook_.copy_(initial.codes);
  }

  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override {
    if (!fresh.defined()) return;
    codebook_.copy_(at::where(revived.unsqueeze(1), fresh, codebook_));
  }

  at::Tensor codebook_;
};

}  // namespace

absl::Status ValidateVq(const VqConfig& config) {
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), {}, &errors);
  return errors.status();
}

Contract VqContract(const std::string& /*instance*/, const VqConfig& config,
                    const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeVq(
    const VqConfig& config, const PluginContext& context) {
  auto spec =
      MakeCodebookSpec("vq", config.num_codes(), config.codebook(), context);
  if (!spec.ok()) return spec.status();
  return std::make_shared<Vq>(*std::move(spec));
}

}  // namespace semvq
