#include "quantizers/lfq/lfq.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/bits.h"
#include "core/quantize/dim.h"
#include "core/quantize/grid_quantizer.h"

namespace semvq {
namespace {

class Lfq : public GridQuantizer {
 public:
  Lfq(const LfqConfig& config, std::string instance)
      : GridQuantizer(std::move(instance), int64_t{1} << config.bits(),
                      config.bits(), config.usage_window()),
        config_(config) {}

 private:
  Rounded Round(const at::Tensor& z) const override {
    return {z, CodesOfBits(z.detach().gt(0))};
  }

  at::Tensor Points(const at::Tensor& codes) const override {
    return at::where(BitsOfCodes(codes, dim()), unit(), -unit());
  }

  NamedTensors Losses(const FeatureRows& rows, const Rounded& /*rounded*/,
                      const at::Tensor& points,
                      NamedTensors* metrics) const override {
    // The softmax of 2 t <z, c> over c in {-1, 1}^D is a product over
    // dimensions of sigmoid(4 t z_d).
    const at::Tensor logits = rows.z * (4 * config_.inverse_temperature());
    const at::Tensor token = MeanBitEntropy(logits, rows);
    const at::Tensor batch =
        EntropyOfMeanBits(logits, rows, config_.entropy_bits());
    metrics->emplace_back("token_entropy", token.detach());
    metrics->emplace_back("batch_entropy", batch.detach());
    return {
        {"entropy", token - batch * config_.gamma()},
        {"commitment", MeanOverRows(SquaredDistances(rows.z, points), rows) /
                           static_cast<double>(dim())}};
  }

  const LfqConfig config_;
};

}  // namespace

absl::Status ValidateLfq(const LfqConfig& config) {
  FieldErrors errors;
  errors.Require(config.bits() >= 1 && config.bits() <= 30, "bits",
                 config.bits(), "1 to 30");
  errors.Require(
      config.inverse_temperature() > 0 && config.inverse_temperature() <= 1e6,
      "inverse_temperature", config.inverse_temperature(),
      "more than 0, at most 1000000");
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

Contract LfqContract(const std::string& /*instance*/, const LfqConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  if (config.bits() < 1 || config.bits() > 30) return contract;
  contract = OneGroupContract(int64_t{1} << config.bits());
  contract.provides = {{kQuantized, config.bits()}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeLfq(
    const LfqConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  if (*dim != config.bits()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bits: got ", config.bits(), ", but the features have ",
                     *dim, " dimensions; expected one for each"));
  }
  return std::make_shared<Lfq>(config, context.instance);
}

}  // namespace semvq
