#include "trainer/nonfinite.h"

#include <c10/util/Exception.h>
#include <torch/types.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/forward/types.h"
#include "trainer/autocast.h"
#include "trainer/losses.h"

namespace semvq {
namespace {

constexpr size_t kNamedParameters = 3;

// "[8,12,32]: 384 of 3072 values, the first in row 2"; empty when all values
// of a floating-point tensor are finite.
std::string Describe(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_floating_point()) return "";
  c10::NoGradGuard no_grad;
  const at::Tensor bad = at::isfinite(tensor).logical_not().to(at::kCPU);
  const int64_t count = bad.sum().item<int64_t>();
  if (count == 0) return "";
  std::string text = absl::StrCat("[", absl::StrJoin(tensor.sizes(), ","),
                                  "]: ", count, " of ", tensor.numel(),
                                  tensor.numel() == 1 ? " value" : " values");
  if (tensor.dim() > 1) {
    const at::Tensor rows = bad.flatten(1).any(1);
    absl::StrAppend(&text, ", the first in row ",
                    rows.to(at::kByte).argmax().item<int64_t>());
  }
  return text;
}

template <class T>
const T* ViewAs(Forward& forward, const ViewKey& key) {
  try {
    return &forward.Get<T>(key);
  } catch (const c10::Error&) {
    return nullptr;  // Of another type.
  }
}

// The floating-point tensors of a view that was computed. Of a type that only
// its plugin knows there are none.
NamedTensors TensorsOf(Forward& forward, const ViewKey& key) {
  if (const auto* tensor = ViewAs<at::Tensor>(forward, key)) {
    return {{"", *tensor}};
  }
  if (const auto* tokens = ViewAs<Tokens>(forward, key)) {
    return {{"", tokens->values}};
  }
  if (const auto* list = ViewAs<std::vector<at::Tensor>>(forward, key)) {
    NamedTensors tensors;
    for (const at::Tensor& tensor : *list) {
      tensors.emplace_back(absl::StrCat(" ", tensors.size()), tensor);
    }
    return tensors;
  }
  if (const auto* codes = ViewAs<QuantizedTokens>(forward, key)) {
    NamedTensors tensors = {{" features", codes->features},
                            {" vectors", codes->quantized.vectors},
                            {" tokens", codes->tokens}};
    for (const auto& [name, loss] : codes->quantized.losses) {
      tensors.emplace_back(absl::StrCat(" loss ", name), loss);
    }
    return tensors;
  }
  return {};
}

std::string StateProblem(const Model& model) {
  for (const auto& p : model.named_parameters()) {
    const std::string what = Describe(p.value());
    if (!what.empty()) return absl::StrCat("parameter ", p.key(), " ", what);
  }
  for (const auto& b : model.named_buffers()) {
    const std::string what = Describe(b.value());
    if (!what.empty()) return absl::StrCat("buffer ", b.key(), " ", what);
  }
  return "";
}

}  // namespace

std::string FindNonFinite(Model& model, const Providers* teacher,
                          const Batch& batch, const ForwardOptions& options,
                          bool bf16) {
  std::string found = StateProblem(model);
  const auto note = [&found](const std::string& what,
                             const at::Tensor& tensor) {
    if (!found.empty()) return;
    const std::string problem = Describe(tensor);
    if (!problem.empty()) found = absl::StrCat(what, " ", problem);
  };
  note("the batch's images", batch.images);

  model.zero_grad();
  Forward forward(batch, model.providers(), teacher, options);
  Losses losses;
  {
    Autocast autocast(bf16, batch.images.device().type());
    losses = ComputeLosses(model, forward);
  }
  // A view that is asked for now is there; the list does not grow.
  const std::vector<ViewKey> views = forward.computed();
  std::vector<std::pair<std::string, at::Tensor>> differentiable;
  for (const ViewKey& key : views) {
    for (auto& [part, tensor] : TensorsOf(forward, key)) {
      const std::string name = absl::StrCat("view ", ToString(key), part);
      note(name, tensor);
      if (tensor.defined() && tensor.requires_grad() && !tensor.is_leaf()) {
        tensor.retain_grad();
        differentiable.emplace_back(name, tensor);
      }
    }
  }
  for (const auto& [name, loss] : losses.named) note("loss " + name, loss);
  if (!losses.total.defined() || !losses.total.requires_grad()) return found;

  // Also when something was found: the ranks wait for each other in here.
  losses.total.backward();
  std::reverse(differentiable.begin(), differentiable.end());
  for (const auto& [name, tensor] : differentiable) {
    note("the gradient at " + name, tensor.grad());
  }
  if (!found.empty()) return found;
  std::vector<std::string> parameters;
  for (const auto& p : model.named_parameters()) {
    const std::string what = Describe(p.value().grad());
    if (!what.empty()) parameters.push_back(absl::StrCat(p.key(), " ", what));
  }
  if (parameters.empty()) return "";
  const size_t all = parameters.size();
  parameters.resize(std::min(all, kNamedParameters));
  return absl::StrCat(
      "the gradient of parameter ", absl::StrJoin(parameters, "; of "),
      all > kNamedParameters
          ? absl::StrCat("; and of ", all - kNamedParameters, " more")
          : "");
}

}  // namespace semvq
