#include "quantizers/residual/residual.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/inner.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

constexpr int64_t kMostLevels = 64;

class Residual : public Quantizer {
 public:
  Residual(const ResidualConfig& config, std::string instance,
           std::vector<std::shared_ptr<Quantizer>> inners)
      : config_(config),
        instance_(std::move(instance)),
        inners_(std::move(inners)),
        inner_(inners_[0]->info()) {
    torch::nn::ModuleList levels;
    for (const auto& inner : inners_) levels->push_back(inner);
    register_module("levels", levels);
  }

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    TORCH_CHECK(features.dim() == 3 && features.size(2) == inner_.dim,
                "quantizer ", instance_, ": expected features [B, N, ",
                inner_.dim, "], got ", features.sizes());
    const bool train = context.mode == QuantizeMode::kTrain;
    const int64_t levels = train ? LevelsOfStep(context) : config_.levels();
    PartReports reports("level", config_.levels());
    Quantized result;
    std::vector<at::Tensor> codes;
    at::Tensor residual = features;
    for (int64_t i = 0; i < levels; ++i) {
      const double scale = Scale(i);
      Quantized level = Level(i).Quantize(
          scale == 1 ? residual : residual / scale, ContextOf(i, context));
      reports.Add(i, level);
      const at::Tensor vectors =
          scale == 1 ? level.vectors : level.vectors * scale;
      result.vectors = i == 0 ? vectors : result.vectors + vectors;
      residual =
          residual - (config_.detach_residuals() ? vectors.detach() : vectors);
      if (level.codes.defined()) codes.push_back(level.codes);
      if (config_.levels() == 1) result.assignment = level.assignment;
    }
    if (!codes.empty()) {
      // Of levels that were dropped.
      while (static_cast<int64_t>(codes.size()) < config_.levels())
        codes.push_back(at::full_like(codes[0], -1));
      result.codes = at::cat(codes, -1);
    }
    if (!train) return result;
    reports.Report(&result);
    ReportWhole(features, context, &result);
    losses_.clear();
    for (const auto& [name, loss] : result.losses) losses_.push_back(name);
    return result;
  }

  at::Tensor Lookup(const at::Tensor& codes) override {
    const int64_t groups = static_cast<int64_t>(inner_.codes_per_group.size());
    TORCH_CHECK(inner_.has_codes, "quantizer ", instance_,
                " has no codes, so there is nothing to look up");
    TORCH_CHECK(codes.scalar_type() == at::kLong && codes.dim() >= 1 &&
                    codes.size(-1) == groups * config_.levels(),
                "quantizer ", instance_, ": expected int64 codes [..., ",
                groups * config_.levels(), "], got ", codes.scalar_type(), " ",
                codes.sizes());
    at::Tensor sum;
    for (int64_t i = 0; i < config_.levels(); ++i) {
      at::Tensor own = codes.narrow(-1, i * groups, groups);
      at::Tensor dropped;
      if (i > 0) {
        dropped = own.eq(-1).all(-1, /*keepdim=*/true);
        own = own.masked_fill(dropped, 0);
      }
      at::Tensor vectors = Level(i).Lookup(own);
      if (Scale(i) != 1) vectors = vectors * Scale(i);
      sum = i == 0 ? vectors : at::where(dropped, sum, sum + vectors);
    }
    return sum;
  }

  CodebookInfo info() const override {
    CodebookInfo info = inner_;
    info.codes_per_group.clear();
    for (int64_t i = 0; i < config_.levels(); ++i) {
      info.codes_per_group.insert(info.codes_per_group.end(),
                                  inner_.codes_per_group.begin(),
                                  inner_.codes_per_group.end());
    }
    // A sum, quantised again, need not fall into the same parts.
    info.idempotent = inner_.idempotent && config_.levels() == 1;
    return info;
  }

  // A level's losses depend on the codes of the levels before it, and by the
  // formula no gradient follows that.
  std::vector<std::string> EstimatedLosses() const override {
    return config_.levels() == 1 ? inners_[0]->EstimatedLosses() : losses_;
  }

  NamedTensors CodeValues() const override {
    return PartReports::CodeValues("level", inners_);
  }

  absl::Status AfterStep(const QuantizeContext& context) override {
    for (const auto& inner : inners_) {
      const absl::Status status = inner->AfterStep(context);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  Quantizer& Level(int64_t i) const {
    return *inners_[config_.shared() ? 0 : i];
  }
  double Scale(int64_t i) const {
    return std::pow(config_.level_scale(), static_cast<double>(i));
  }

  // One module at several levels must not draw the same noise at each.
  QuantizeContext ContextOf(int64_t level, QuantizeContext context) const {
    if (config_.shared() && level > 0) {
      context.seed = StreamKey(context.seed, absl::StrCat(instance_, "/level"),
                               static_cast<uint64_t>(level));
    }
    return context;
  }

  int64_t LevelsOfStep(const QuantizeContext& context) const {
    if (!config_.dropout()) return config_.levels();
    const int64_t keep = config_.dropout_keep();
    return keep + RandomStream(context.seed,
                               absl::StrCat(instance_, "/residual/dropout"),
                               static_cast<uint64_t>(context.step))
                      .Below(config_.levels() - keep + 1);
  }

  const ResidualConfig config_;
  const std::string instance_;
  const std::vector<std::shared_ptr<Quantizer>> inners_;
  const CodebookInfo inner_;
  std::vector<std::string> losses_;  // Names, of the last training batch.
};

}  // namespace

absl::Status ValidateResidual(const ResidualConfig& config) {
  FieldErrors errors;
  errors.Require(
      config.has_quantizer() && !config.quantizer().type_url().empty(),
      "quantizer", "none",
      "the quantizer of each level, as quantizer { "
      "[type.googleapis.com/semvq.VqEmaConfig] { ... } }");
  errors.Require(config.levels() >= 1 && config.levels() <= kMostLevels,
                 "levels", config.levels(), "1 to 64");
  errors.Require(
      config.dropout_keep() >= 1 &&
          (config.dropout_keep() <= config.levels() || !config.dropout()),
      "dropout_keep", config.dropout_keep(), "1 to the number of levels");
  // So that no level's features leave the range of float32.
  const double last =
      std::pow(config.level_scale(),
               static_cast<double>(
                   std::clamp<int64_t>(config.levels(), 1, kMostLevels) - 1));
  errors.Require(config.level_scale() > 0 && config.level_scale() <= 1e6 &&
                     last >= 1e-12 && last <= 1e12,
                 "level_scale", config.level_scale(),
                 "a factor whose power levels - 1 is within 1e-12 to 1e12");
  return errors.status();
}

Contract ResidualContract(const std::string& instance,
                          const ResidualConfig& config,
                          const ContractBook& book) {
  const Contract inner =
      InnerContract(config.quantizer(), absl::StrCat(instance, "/0"),
                    book.Dim(instance, kQuantized), book);
  Contract contract;
  contract.codes.exact_lookup = inner.codes.exact_lookup;
  const int64_t levels = std::clamp<int64_t>(config.levels(), 0, kMostLevels);
  for (int64_t i = 0; i < levels; ++i) {
    contract.codes.codes_per_group.insert(contract.codes.codes_per_group.end(),
                                          inner.codes.codes_per_group.begin(),
                                          inner.codes.codes_per_group.end());
  }
  if (const ProvidedView* own = inner.Find(kQuantized))
    contract.provides.push_back(*own);
  AddNestedNeeds("quantizer", inner, &contract);
  contract.varying_graph |= config.dropout();
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeResidual(
    const ResidualConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  auto inners = MakeInners(
      config.quantizer(), config.shared() ? 1 : config.levels(), *dim, context);
  if (!inners.ok()) return inners.status();
  return std::make_shared<Residual>(config, context.instance,
                                    *std::move(inners));
}

}  // namespace semvq
