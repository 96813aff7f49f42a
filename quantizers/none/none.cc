#include "quantizers/none/none.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/plugin/quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/rows.h"

namespace semvq {
namespace {

class None : public Quantizer {
 public:
  None(std::string instance, int64_t dim)
      : instance_(std::move(instance)), dim_(dim) {}

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    const FeatureRows rows =
        ToRows(features, context, dim_, features.scalar_type(), instance_);
    Quantized result;
    result.vectors = rows.z.view(features.sizes());
    if (context.mode == QuantizeMode::kTrain)
      result.metrics = {{"nonfinite", NonFiniteRows(rows)}};
    return result;
  }

  at::Tensor Lookup(const at::Tensor& /*codes*/) override {
    TORCH_CHECK(false, "quantizer ", instance_,
                " has no codes, so there is nothing to look up");
  }

  CodebookInfo info() const override {
    CodebookInfo info;
    info.dim = dim_;
    info.has_codes = false;
    info.exact_lookup = false;
    return info;
  }

 private:
  std::string instance_;
  int64_t dim_;
};

}  // namespace

absl::Status ValidateNone(const NoneConfig& /*config*/) {
  return absl::OkStatus();
}

Contract NoneContract(const std::string& /*instance*/,
                      const NoneConfig& /*config*/,
                      const ContractBook& /*book*/) {
  Contract contract;
  contract.codes.exact_lookup = false;
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeNone(
    const NoneConfig& /*config*/, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  return std::make_shared<None>(context.instance, *dim);
}

}  // namespace semvq
