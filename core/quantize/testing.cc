#include "core/quantize/testing.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/testing.h"

namespace semvq {

QuantizeContext TrainingContext(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.step = step;
  return context;
}

at::Tensor TensorNamed(const NamedTensors& tensors, const std::string& name) {
  at::Tensor found;
  for (const auto& [key, value] : tensors) {
    if (key == name) found = value;
  }
  TORCH_CHECK(found.defined(), "nothing is named ", name);
  return found;
}

at::Tensor StateNamed(Quantizer& quantizer, const std::string& name) {
  const auto parameters = quantizer.named_parameters();
  if (const at::Tensor* p = parameters.find(name)) return *p;
  const auto buffers = quantizer.named_buffers();
  const at::Tensor* b = buffers.find(name);
  TORCH_CHECK(b != nullptr, "no parameter or buffer is named ", name);
  return *b;
}

absl::Status CheckLossGradients(Quantizer& quantizer,
                                const at::Tensor& features,
                                const QuantizeContext& context) {
  const at::Tensor z = features.detach().clone().requires_grad_();
  std::vector<std::pair<std::string, at::Tensor>> leaves = {{"features", z}};
  for (const auto& p : quantizer.named_parameters())
    leaves.emplace_back(p.key(), p.value());
  const std::vector<std::string> estimated = quantizer.EstimatedLosses();
  const NamedTensors losses = quantizer.Quantize(z, context).losses;
  for (const auto& [name, loss] : losses) {
    if (!loss.requires_grad() ||
        std::count(estimated.begin(), estimated.end(), name) > 0) {
      continue;
    }
    for (size_t i = 0; i < leaves.size(); ++i) {
      const at::Tensor gradient =
          torch::autograd::grad({loss}, {leaves[i].second}, {},
                                /*retain_graph=*/true, /*create_graph=*/false,
                                /*allow_unused=*/true)[0];
      if (!gradient.defined()) continue;
      // The leaf alone: the others' values do not move.
      for (auto& [key, leaf] : leaves) leaf.requires_grad_(false);
      leaves[i].second.requires_grad_(true);
      const std::string which = name;
      const absl::Status checked = NumericGradientCheck(
          [&](const std::vector<at::Tensor>&) {
            return TensorNamed(quantizer.Quantize(z, context).losses, which);
          },
          {leaves[i].second});
      for (auto& [key, leaf] : leaves) leaf.requires_grad_(true);
      if (!checked.ok()) {
        return absl::Status(checked.code(),
                            absl::StrCat(name, " by ", leaves[i].first, ": ",
                                         checked.message()));
      }
    }
  }
  return absl::OkStatus();
}

namespace internal {

std::shared_ptr<Quantizer> MakeForTest(
    int64_t dim, const std::function<absl::StatusOr<std::shared_ptr<Quantizer>>(
                     const PluginContext&)>& make) {
  Contract host;
  host.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.seed = 5;
  context.book = &book;
  auto made = make(context);
  TORCH_CHECK(made.ok(), made.status().ToString());
  return *made;
}

}  // namespace internal
}  // namespace semvq
