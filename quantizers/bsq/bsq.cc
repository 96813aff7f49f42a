#include "quantizers/bsq/bsq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/bits.h"
#include "core/quantize/codebook.h"
#include "core/quantize/dim.h"
#include "core/quantize/grid_quantizer.h"

namespace semvq {
namespace {

class Bsq : public GridQuantizer {
 public:
  Bsq(const BsqConfig& config, std::string instance)
      : GridQuantizer(std::move(instance), int64_t{1} << config.bits(),
                      config.bits(), config.usage_window()),
        config_(config) {}

 private:
  Rounded Round(const at::Tensor& z) const override {
    const at::Tensor u = UnitVectors(z);
    return {u, CodesOfBits(u.detach().gt(0))};
  }

  at::Tensor Points(const at::Tensor& codes) const override {
    const at::Tensor side = unit() * Side();
    return at::where(BitsOfCodes(codes, dim()), side, -side);
  }

  NamedTensors Losses(const FeatureRows& rows, const Rounded& rounded,
                      const at::Tensor& points,
                      NamedTensors* metrics) const override {
    // The softmax of 2 t <u, c> over the corners c is a product over dimensions
    // of sigmoid(4 t u_d / sqrt(D)).
    const at::Tensor& u = rounded.bounded;
    const at::Tensor logits = u * (4 * config_.inverse_temperature() * Side());
    const at::Tensor token = MeanBitEntropy(logits, rows);
    const at::Tensor batch =
        EntropyOfMeanBits(logits, rows, config_.entropy_bits());
    metrics->emplace_back("token_entropy", token.detach());
    metrics->emplace_back("batch_entropy", batch.detach());
    return {{"entropy", token * config_.gamma0() - batch * config_.gamma()},
            {"commitment", MeanOverRows(SquaredDistances(u, points), rows) /
                               static_cast<double>(dim())}};
  }

  double Side() const { return 1 / std::sqrt(static_cast<double>(dim())); }

  const BsqConfig config_;
};

}  // namespace

absl::Status ValidateBsq(const BsqConfig& config) {
  FieldErrors errors;
  errors.Require(config.bits() >= 1 && config.bits() <= 30, "bits",
                 config.bits(), "1 to 30");
  errors.Require(
      config.inverse_temperature() > 0 && config.inverse_temperature() <= 1e6,
      "inverse_temperature", config.inverse_temperature(),
      "more than 0, at most 1000000");
  errors.Require(config.gamma0() >= 0 && config.gamma0() <= 1e6, "gamma0",
                 config.gamma0(), "0 to 1000000");
  errors.Require(config.gamma() >= 0 && config.gamma() <= 1e6, "gamma",
                 config.gamma(), "0 to 1000000");
  errors.Require(config.entropy_bits() >= 1 && config.entropy_bits() <= 24,
                 "entropy_bits", config.entropy_bits(), "1 to 24");
  errors.Require(
      config.usage_window() >= 1 &&
          config.usage_window() <= std::numeric_limits<int32_t>::max(),
      "usage_window", config.usage_window(), "1 to 2147483647");
  return errors.status();
}

Contract BsqContract(const std::string& /*instance*/, const BsqConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  if (config.bits() < 1 || config.bits() > 30) return contract;
  contract = OneGroupContract(int64_t{1} << config.bits());
  contract.provides = {{kQuantized, config.bits()}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeBsq(
    const BsqConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  if (*dim != config.bits()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bits: got ", config.bits(), ", but the features have ",
                     *dim, " dimensions; expected one for each"));
  }
  return std::make_shared<Bsq>(config, context.instance);
}

}  // namespace semvq
