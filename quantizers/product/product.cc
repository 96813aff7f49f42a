#include "quantizers/product/product.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>
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

constexpr int64_t kMostGroups = 1024;

class Product : public Quantizer {
 public:
  Product(const ProductConfig& config, std::string instance,
          std::vector<std::shared_ptr<Quantizer>> inners)
      : groups_(config.groups()),
        shared_(config.shared()),
        instance_(std::move(instance)),
        inners_(std::move(inners)),
        inner_(inners_[0]->info()) {
    torch::nn::ModuleList groups;
    for (const auto& inner : inners_) groups->push_back(inner);
    register_module("groups", groups);
  }

  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) override {
    TORCH_CHECK(features.dim() == 3 && features.size(2) == groups_ * inner_.dim,
                "quantizer ", instance_, ": expected features [B, N, ",
                groups_ * inner_.dim, "], got ", features.sizes());
    PartReports reports("group", groups_);
    Quantized result;
    std::vector<at::Tensor> vectors, codes;
    for (int64_t g = 0; g < groups_; ++g) {
      Quantized part =
          Group(g).Quantize(features.narrow(2, g * inner_.dim, inner_.dim),
                            ContextOf(g, context));
      reports.Add(g, part);
      vectors.push_back(part.vectors);
      if (part.codes.defined()) codes.push_back(part.codes);
      if (groups_ == 1) result.assignment = part.assignment;
    }
    result.vectors = at::cat(vectors, -1);
    if (!codes.empty()) result.codes = at::cat(codes, -1);
    if (context.mode != QuantizeMode::kTrain) return result;
    reports.Report(&result);
    ReportWhole(features, context, &result);
    return result;
  }

  at::Tensor Lookup(const at::Tensor& codes) override {
    const int64_t own = static_cast<int64_t>(inner_.codes_per_group.size());
    TORCH_CHECK(inner_.has_codes, "quantizer ", instance_,
                " has no codes, so there is nothing to look up");
    TORCH_CHECK(codes.scalar_type() == at::kLong && codes.dim() >= 1 &&
                    codes.size(-1) == own * groups_,
                "quantizer ", instance_, ": expected int64 codes [..., ",
                own * groups_, "], got ", codes.scalar_type(), " ",
                codes.sizes());
    std::vector<at::Tensor> vectors;
    for (int64_t g = 0; g < groups_; ++g)
      vectors.push_back(Group(g).Lookup(codes.narrow(-1, g * own, own)));
    return at::cat(vectors, -1);
  }

  CodebookInfo info() const override {
    CodebookInfo info = inner_;
    info.dim = groups_ * inner_.dim;
    info.codes_per_group.clear();
    for (int64_t g = 0; g < groups_; ++g) {
      info.codes_per_group.insert(info.codes_per_group.end(),
                                  inner_.codes_per_group.begin(),
                                  inner_.codes_per_group.end());
    }
    return info;
  }

  std::vector<std::string> EstimatedLosses() const override {
    return inners_[0]->EstimatedLosses();
  }

  NamedTensors CodeValues() const override {
    return PartReports::CodeValues("group", inners_);
  }

  absl::Status AfterStep(const QuantizeContext& context) override {
    for (const auto& inner : inners_) {
      const absl::Status status = inner->AfterStep(context);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  Quantizer& Group(int64_t g) const { return *inners_[shared_ ? 0 : g]; }

  // One module for several groups must not draw the same noise for each.
  QuantizeContext ContextOf(int64_t group, QuantizeContext context) const {
    if (shared_ && group > 0) {
      context.seed = StreamKey(context.seed, absl::StrCat(instance_, "/group"),
                               static_cast<uint64_t>(group));
    }
    return context;
  }

  const int64_t groups_;
  const bool shared_;
  const std::string instance_;
  const std::vector<std::shared_ptr<Quantizer>> inners_;
  const CodebookInfo inner_;
};

}  // namespace

absl::Status ValidateProduct(const ProductConfig& config) {
  FieldErrors errors;
  errors.Require(
      config.has_quantizer() && !config.quantizer().type_url().empty(),
      "quantizer", "none",
      "the quantizer of each group, as quantizer { "
      "[type.googleapis.com/semvq.VqEmaConfig] { ... } }");
  errors.Require(config.groups() >= 1 && config.groups() <= kMostGroups,
                 "groups", config.groups(), "1 to 1024");
  return errors.status();
}

Contract ProductContract(const std::string& instance,
                         const ProductConfig& config,
                         const ContractBook& book) {
  const int64_t groups = std::clamp<int64_t>(config.groups(), 1, kMostGroups);
  const int64_t dim = book.Dim(instance, kQuantized);
  const Contract inner = InnerContract(
      config.quantizer(), absl::StrCat(instance, "/0"), dim / groups, book);
  Contract contract;
  contract.codes.exact_lookup = inner.codes.exact_lookup;
  for (int64_t g = 0; g < groups; ++g) {
    contract.codes.codes_per_group.insert(contract.codes.codes_per_group.end(),
                                          inner.codes.codes_per_group.begin(),
                                          inner.codes.codes_per_group.end());
  }
  const ProvidedView* own = inner.Find(kQuantized);
  if (own != nullptr && own->dim > 0) {
    contract.provides = {{kQuantized, own->dim * groups}};
  } else if (dim % groups != 0) {
    contract.provides = {{kQuantized, dim + groups - dim % groups}};
  }
  AddNestedNeeds("quantizer", inner, &contract);
  return contract;
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeProduct(
    const ProductConfig& config, const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  const int64_t groups = config.groups();
  if (*dim % groups != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("groups: got ", groups, ", expected a divisor of ", *dim,
                     ", the features' dimension"));
  }
  auto inners = MakeInners(config.quantizer(), config.shared() ? 1 : groups,
                           *dim / groups, context);
  if (!inners.ok()) return inners.status();
  return std::make_shared<Product>(config, context.instance,
                                   *std::move(inners));
}

}  // namespace semvq
