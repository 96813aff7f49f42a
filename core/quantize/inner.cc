#include "core/quantize/inner.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/registry.h"
#include "core/quantize/rows.h"

namespace semvq {
namespace {

// The book with the inner instance in it, as the experiment's own quantizers
// find themselves there.
ContractBook BookWith(const ContractBook* book, const std::string& instance,
                      int64_t dim) {
  ContractBook with = book == nullptr ? ContractBook() : *book;
  Contract contract;
  contract.provides = {{kQuantized, dim}};
  with.Add(instance, std::move(contract));
  return with;
}

void SetMetric(const std::string& name, const at::Tensor& value,
               NamedTensors* metrics) {
  for (auto& [known, metric] : *metrics) {
    if (known == name) {
      metric = value;
      return;
    }
  }
  metrics->emplace_back(name, value);
}

}  // namespace

Contract InnerContract(const google::protobuf::Any& any,
                       const std::string& instance, int64_t dim,
                       const ContractBook& book) {
  const absl::StatusOr<UnpackedPlugin> plugin =
      UnpackPlugin(any, PluginKind::kQuantizer);
  if (!plugin.ok()) return Contract();
  return plugin->type->contract(instance, *plugin->config,
                                BookWith(&book, instance, dim));
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeInner(
    const google::protobuf::Any& any, const std::string& instance, int64_t dim,
    const PluginContext& context) {
  const absl::StatusOr<UnpackedPlugin> plugin =
      UnpackPlugin(any, PluginKind::kQuantizer);
  const auto named = [&instance](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("quantizer \"", instance,
                                                    "\": ", status.message()));
  };
  if (!plugin.ok()) return named(plugin.status());
  const ContractBook book = BookWith(context.book, instance, dim);
  PluginContext inner = context;
  inner.instance = instance;
  inner.book = &book;
  auto made = Registry::Global().Make<Quantizer>(*plugin->config, inner);
  if (!made.ok()) return named(made.status());
  return made;
}

absl::StatusOr<std::vector<std::shared_ptr<Quantizer>>> MakeInners(
    const google::protobuf::Any& any, int64_t count, int64_t dim,
    const PluginContext& context) {
  std::vector<std::shared_ptr<Quantizer>> inners;
  for (int64_t i = 0; i < count; ++i) {
    auto made =
        MakeInner(any, absl::StrCat(context.instance, "/", i), dim, context);
    if (!made.ok()) return made.status();
    inners.push_back(*std::move(made));
  }
  return inners;
}

void PartReports::AddTo(const NamedTensors& values, Sums* sums) {
  for (const auto& [name, value] : values) {
    Sum* sum = nullptr;
    for (auto& [known, entry] : *sums) {
      if (known == name) sum = &entry;
    }
    if (sum == nullptr) sum = &sums->emplace_back(name, Sum()).second;
    sum->value = sum->value.defined() ? sum->value + value : value;
    ++sum->count;
  }
}

void PartReports::Add(int64_t index, const Quantized& quantized) {
  AddTo(quantized.losses, &losses_);
  AddTo(quantized.metrics, &metrics_);
  for (const auto& [name, value] : quantized.metrics)
    own_.emplace_back(absl::StrCat(part_, index, "/", name), value);
  if (quantized.entropy.has_value()) {
    entropy_ =
        entropy_.defined() ? entropy_ + *quantized.entropy : *quantized.entropy;
  }
}

void PartReports::Report(Quantized* whole) const {
  whole->losses.clear();
  whole->metrics.clear();
  for (const auto& [name, sum] : losses_)
    whole->losses.emplace_back(name, sum.value / static_cast<double>(parts_));
  for (const auto& [name, sum] : metrics_) {
    whole->metrics.emplace_back(name,
                                sum.value / static_cast<double>(sum.count));
  }
  whole->metrics.insert(whole->metrics.end(), own_.begin(), own_.end());
  if (entropy_.defined()) whole->entropy = entropy_;
}

NamedTensors PartReports::CodeValues(
    const std::string& part,
    const std::vector<std::shared_ptr<Quantizer>>& parts) {
  if (parts.size() == 1) return parts[0]->CodeValues();
  NamedTensors values;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const auto& [name, value] : parts[i]->CodeValues())
      values.emplace_back(absl::StrCat(part, i, "/", name), value);
  }
  return values;
}

void ReportWhole(const at::Tensor& features, const QuantizeContext& context,
                 Quantized* whole) {
  c10::NoGradGuard no_grad;
  const FeatureRows rows = ToRows(features, context, features.size(2),
                                  features.scalar_type(), "parts");
  const at::Tensor vectors = whole->vectors.reshape({-1, features.size(2)});
  NamedTensors metrics = {
      {"quantization_error",
       MeanOverRows(SquaredDistances(rows.z, vectors), rows)},
      {"nonfinite", NonFiniteRows(rows)}};
  AverageOverRanks(rows.group, &metrics);
  for (const auto& [name, value] : metrics)
    SetMetric(name, value, &whole->metrics);
}

}  // namespace semvq
