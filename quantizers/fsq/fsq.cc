#include "quantizers/fsq/fsq.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/grid_quantizer.h"

namespace semvq {
namespace {

constexpr int64_t kMostCodes = std::numeric_limits<int32_t>::max();
// Beyond, the formula's margin of 0.001 reaches another level.
constexpr int64_t kMostLevels = 1000;

// The product of the levels, or more than kMostCodes.
int64_t NumCodes(const FsqConfig& config) {
  int64_t codes = 1;
  for (const int64_t levels : config.levels()) {
    if (levels < 1 || levels > kMostCodes) return kMostCodes + 1;
    codes = std::min(codes * levels, kMostCodes + 1);
  }
  return codes;
}

class Fsq : public GridQuantizer {
 public:
  Fsq(const FsqConfig& config, std::string instance)
      : GridQuantizer(std::move(instance), NumCodes(config),
                      config.levels_size(), config.usage_window()) {
    const std::vector<int64_t> levels(config.levels().begin(),
                                      config.levels().end());
    levels_ =
        register_buffer("levels", at::tensor(levels, at::kLong).to(at::kFloat));
  }

  CodebookInfo info() const override {
    CodebookInfo info = GridQuantizer::info();
    info.idempotent = false;  // tanh draws the levels inwards.
    return info;
  }

 private:
  Rounded Round(const at::Tensor& z) const override {
    const at::Tensor half = HalfWidth();
    const at::Tensor h = (levels_ - 1) * (1 + 1e-3) / 2;
    const at::Tensor o =
        at::where(levels_.fmod(2).eq(0), at::full({}, 0.5, levels_.options()),
                  at::zeros({}, levels_.options()));
    const at::Tensor bounded = at::tanh(z + at::atanh(o / h)) * h - o;
    // NaN gets a code, too; the vector stays NaN.
    const at::Tensor index = at::minimum(
        (bounded.detach().round() + half).nan_to_num(0.0).clamp_min(0),
        levels_ - 1);
    return {bounded / half, (index.to(at::kLong) * Basis()).sum(1)};
  }

  at::Tensor Points(const at::Tensor& codes) const override {
    const at::Tensor index = codes.unsqueeze(1).floor_divide(Basis()).remainder(
        levels_.to(at::kLong));
    const at::Tensor half = HalfWidth();
    return (index.to(levels_.scalar_type()) - half) / half;
  }

  NamedTensors Losses(const FeatureRows& /*rows*/, const Rounded& /*rounded*/,
                      const at::Tensor& /*points*/,
                      NamedTensors* /*metrics*/) const override {
    return {};
  }

  at::Tensor HalfWidth() const { return at::floor(levels_ / 2); }

  // 1, L_0, L_0 L_1, ...
  at::Tensor Basis() const {
    const at::Tensor levels = levels_.to(at::kLong);
    return levels.cumprod(0).floor_divide(levels);
  }

  at::Tensor levels_;  // [D]
};

}  // namespace

absl::Status ValidateFsq(const FsqConfig& config) {
  FieldErrors errors;
  errors.Require(config.levels_size() > 0, "levels", "none",
                 "the levels of each dimension, as levels: [8, 5, 5, 5]");
  bool each = true;
  for (int i = 0; i < config.levels_size(); ++i) {
    const int64_t levels = config.levels(i);
    const bool fine = levels >= 2 && levels <= kMostLevels;
    errors.Require(fine, absl::StrCat("levels[", i, "]"), levels, "2 to 1000");
    each &= fine;
  }
  if (each) {
    errors.Require(NumCodes(config) <= kMostCodes, "levels",
                   "more than 2147483647 codes",
                   "a product of at most 2147483647");
  }
  errors.Require(
      config.usage_window() >= 1 && config.usage_window() <= kMostCodes,
      "usage_window", config.usage_window(), "1 to 2147483647");
  return errors.status();
}

Contract FsqContract(const std::string& /*instance*/, const FsqConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract = OneGroupContract(NumCodes(config));
  contract.provides = {{kQuantized, config.levels_size()}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeFsq(
    const FsqConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  if (*dim != config.levels_size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "levels: got ", config.levels_size(), ", but the features have ", *dim,
        " dimensions; expected one for each"));
  }
  return std::make_shared<Fsq>(config, context.instance);
}

}  // namespace semvq
