#include "quantizers/make_quantizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/checkpoint/safetensors.h"
#include "core/config/load.h"
#include "core/config/source.h"
#include "core/forward/views.h"
#include "core/plugin/nested.h"
#include "core/plugin/registry.h"

namespace semvq {
namespace {

constexpr char kInstance[] = "quantizer";

// What is wrong with `config`, one mistake a line; empty: nothing.
std::string Mistakes(const google::protobuf::Message& config, int64_t dim,
                     const Contract& contract) {
  std::vector<std::string> lines;
  for (const PluginError& error : CheckPluginConfig(config)) {
    lines.push_back(error.path.empty()
                        ? error.message
                        : absl::StrCat(error.path, ": ", error.message));
  }
  const ProvidedView* own = contract.Find(kQuantized);
  if (lines.empty() && own != nullptr && own->dim > 0 && own->dim != dim) {
    lines.push_back(
        absl::StrCat("got features of dimension ", dim, ", but this ",
                     config.GetDescriptor()->full_name(), " has ", own->dim));
  }
  return absl::StrJoin(lines, "\n");
}

}  // namespace

absl::StatusOr<std::shared_ptr<Quantizer>> MakeQuantizer(
    const google::protobuf::Any& config, int64_t dim, uint64_t seed) {
  if (dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("dim: got ", dim, ", expected at least 1"));
  }
  const absl::StatusOr<UnpackedPlugin> plugin =
      UnpackPlugin(config, PluginKind::kQuantizer);
  if (!plugin.ok()) return plugin.status();
  Contract features;
  features.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add(kInstance, features);
  const std::string mistakes =
      Mistakes(*plugin->config, dim,
               plugin->type->contract(kInstance, *plugin->config, book));
  if (!mistakes.empty()) return absl::InvalidArgumentError(mistakes);
  PluginContext context;
  context.instance = kInstance;
  context.seed = seed;
  context.book = &book;
  // For layers that start from LibTorch's own generator.
  at::manual_seed(seed);
  return Registry::Global().Make<Quantizer>(*plugin->config, context);
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeQuantizer(
    const std::string& config, int64_t dim, uint64_t seed) {
  const LoadResult loaded = LoadExperiment(
      {{"config", absl::StrCat("quantizers { name: \"", kInstance,
                               "\" config { ", config, "\n} }")}});
  if (!loaded.errors.empty())
    return absl::InvalidArgumentError(FormatReport(loaded.errors));
  return MakeQuantizer(loaded.experiment.quantizers(0).config(), dim, seed);
}

absl::Status LoadQuantizer(const std::string& path, const std::string& prefix,
                           Quantizer& quantizer) {
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // To, from.
  std::vector<std::string> missing, misshaped;
  const auto find = [&](const std::string& key,
                        const at::Tensor& to) -> absl::Status {
    const std::string name = prefix + key;
    if (!(*file)->contains(name)) {
      missing.push_back(name);
      return absl::OkStatus();
    }
    absl::StatusOr<at::Tensor> from = (*file)->Get(name);
    if (!from.ok()) return from.status();
    if (from->sizes() != to.sizes()) {
      misshaped.push_back(absl::StrCat(
          name, " of shape [", absl::StrJoin(from->sizes().vec(), ", "),
          "], expected [", absl::StrJoin(to.sizes().vec(), ", "), "]"));
      return absl::OkStatus();
    }
    copies.emplace_back(to, *std::move(from));
    return absl::OkStatus();
  };
  for (const auto& item : quantizer.named_parameters()) {
    const absl::Status status = find(item.key(), item.value());
    if (!status.ok()) return status;
  }
  for (const auto& item : quantizer.named_buffers()) {
    const absl::Status status = find(item.key(), item.value());
    if (!status.ok()) return status;
  }
  if (!missing.empty()) {
    return absl::NotFoundError(absl::StrCat(
        path, ": no tensor ", absl::StrJoin(missing, ", "),
        "; is the prefix \"", prefix, "\" and the config that of the run?"));
  }
  if (!misshaped.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", absl::StrJoin(misshaped, "; ")));
  }
  c10::NoGradGuard no_grad;
  for (auto& [to, from] : copies) to.copy_(from);
  return absl::OkStatus();
}

}  // namespace semvq
