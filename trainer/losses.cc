#include "trainer/losses.h"

#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <utility>

namespace semvq {
namespace {

void Append(const std::string& instance, const NamedTensors& from,
            NamedTensors& to) {
  for (const auto& [name, value] : from)
    to.emplace_back(instance + "/" + name, value.detach());
}

// The mean over image slots, by place: a quantizer names the same for each.
NamedTensors MeanOf(const std::vector<const Quantized*>& slots,
                    NamedTensors Quantized::*values) {
  NamedTensors mean = slots[0]->*values;
  if (slots.size() == 1) return mean;
  for (size_t i = 0; i < mean.size(); ++i) {
    for (size_t slot = 1; slot < slots.size(); ++slot)
      mean[i].second = mean[i].second + (slots[slot]->*values).at(i).second;
    mean[i].second = mean[i].second / static_cast<double>(slots.size());
  }
  return mean;
}

}  // namespace

Losses ComputeLosses(Model& model, Forward& forward) {
  Losses out;
  const auto add = [&out](const std::string& instance,
                          const NamedTensors& losses, auto weight) {
    at::Tensor sum;
    for (const auto& [name, loss] : losses) {
      const at::Tensor weighted = loss * weight(name);
      sum = sum.defined() ? sum + weighted : weighted;
    }
    Append(instance, losses, out.named);
    if (!sum.defined()) return;
    out.parts.push_back({instance, sum});
    out.total = out.total.defined() ? out.total + sum : sum;
  };

  for (Model::ObjectiveEntry& entry : model.objectives()) {
    RECORD_USER_SCOPE(entry.name);
    const double weight = entry.Weight(forward.step());
    ObjectiveOutput output = entry.objective->Compute(forward);
    add(entry.name, output.losses,
        [weight](const std::string&) { return weight; });
    Append(entry.name, output.metrics, out.metrics);
  }
  for (Model::TaskEntry& entry : model.tasks()) {
    if (!entry.config.fine_tune()) continue;
    RECORD_USER_SCOPE(entry.name);
    const double weight = entry.config.weight();
    ObjectiveOutput output = entry.task->Compute(forward);
    add(entry.name, output.losses,
        [weight](const std::string&) { return weight; });
    Append(entry.name, output.metrics, out.metrics);
  }
  for (Model::QuantizerEntry& entry : model.quantizers()) {
    std::vector<const Quantized*> slots;
    for (int slot = 0; slot < forward.batch().images.size(1); ++slot) {
      const ViewKey key = ImageKey(entry.name, kQuantized, {}, slot);
      if (forward.Has(key))
        slots.push_back(&forward.Get<QuantizedTokens>(key).quantized);
    }
    if (slots.empty()) continue;
    add(entry.name, MeanOf(slots, &Quantized::losses),
        [&entry](const std::string& name) { return entry.LossWeight(name); });
    Append(entry.name, MeanOf(slots, &Quantized::metrics), out.metrics);
  }
  return out;
}

NamedTensors GradientShares(Model& model, const Losses& losses) {
  NamedTensors shares;
  for (const std::string& encoder : model.encoders()) {
    std::vector<at::Tensor> parameters;
    for (const auto& p : model.named_children()[encoder]->parameters()) {
      if (p.requires_grad()) parameters.push_back(p);
    }
    if (parameters.empty()) continue;
    std::vector<at::Tensor> norms;
    for (const WeightedLoss& part : losses.parts) {
      std::vector<at::Tensor> squares;
      if (part.loss.requires_grad()) {
        for (const at::Tensor& g : torch::autograd::grad(
                 {part.loss}, parameters, {}, /*retain_graph=*/true,
                 /*create_graph=*/false,
                 /*allow_unused=*/true)) {
          if (g.defined()) squares.push_back(g.norm());
        }
      }
      norms.push_back(squares.empty() ? at::zeros({}, parameters[0].options())
                                      : at::stack(squares).norm());
    }
    const at::Tensor sum = at::stack(norms).sum().clamp_min(1e-30);
    for (size_t i = 0; i < norms.size(); ++i) {
      shares.emplace_back("share/" + encoder + "/" + losses.parts[i].name,
                          norms[i] / sum);
    }
  }
  return shares;
}

StepVerdict Agree(const NamedTensors& values, bool stop, Communicator* group) {
  TORCH_CHECK(!values.empty(), "nothing to agree on");
  std::vector<at::Tensor> flags;
  for (const auto& [name, value] : values)
    flags.push_back(at::isfinite(value).all().logical_not());
  flags.push_back(at::full({}, stop, flags[0].options()));
  at::Tensor counts = at::stack(flags).to(at::kInt);
  if (group != nullptr) counts = group->AllReduceSum(counts);
  counts = counts.cpu();
  const int32_t* count = counts.data_ptr<int32_t>();
  StepVerdict verdict;
  verdict.stop = count[values.size()] > 0;
  for (size_t i = 0; i < values.size() && verdict.nonfinite.empty(); ++i) {
    if (count[i] > 0) verdict.nonfinite = values[i].first;
  }
  return verdict;
}

}  // namespace semvq
