#include <torch/types.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tests/golden/cases.h"
#include "trainer/optimizer.h"

namespace semvq {

absl::StatusOr<Tensors> RunOptimizer(const Tensors& in) {
  auto values = Input(in, "config");
  if (!values.ok()) return values.status();
  TORCH_CHECK(values->numel() == 10, "config: got ", values->numel(),
              " values, expected 10");
  const at::Tensor row = values->to(at::kDouble).contiguous();
  const double* v = row.const_data_ptr<double>();
  OptimizerConfig config;
  config.set_lr(v[0]);
  config.set_beta1(v[1]);
  config.set_beta2(v[2]);
  config.set_eps(v[3]);
  config.set_weight_decay(v[4]);
  config.set_clip_norm(v[5]);
  ScheduleConfig schedule;
  schedule.set_warmup_steps(static_cast<int64_t>(v[6]));
  schedule.set_warmup_lr(v[7]);
  schedule.set_min_lr(v[8]);
  const auto total = static_cast<int64_t>(v[9]);
  ParameterGroup* slow = config.add_groups();
  slow->set_name("slow");
  slow->set_pattern("slow\\..*");
  slow->set_lr_scale(0.1);
  ParameterGroup* fresh = config.add_groups();
  fresh->set_name("fresh");
  fresh->set_pattern("fresh\\..*");
  fresh->set_weight_decay(0.3);

  NamedTensors parameters;
  std::vector<at::Tensor> grads;
  for (const auto& [key, tensor] : in) {
    absl::string_view name = key;
    if (!absl::ConsumePrefix(&name, "param/")) continue;
    parameters.emplace_back(std::string(name),
                            tensor.clone().requires_grad_(true));
    auto grad = Input(in, absl::StrCat("grad/", name));
    if (!grad.ok()) return grad.status();
    grads.push_back(*grad);
  }
  auto optimizer = AdamW::Create(config, parameters);
  if (!optimizer.ok()) return optimizer.status();

  const int64_t steps = grads.empty() ? 0 : grads[0].size(0);
  std::map<std::string, std::vector<at::Tensor>> history;
  for (int64_t step = 0; step < steps; ++step) {
    optimizer->ZeroGrad();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const at::Tensor grad = grads[i][step].clone();
      if (grad.isnan().any().item<bool>()) continue;
      parameters[i].second.mutable_grad() = grad;
    }
    history["norm"].push_back(
        optimizer->ClipGradients().to(at::kDouble).clone());
    const double lr = LearningRate(config, schedule, step, total);
    history["lr"].push_back(at::full({}, lr, at::kDouble));
    optimizer->Step(lr);
    for (const auto& [name, parameter] : parameters) {
      history["param/" + name].push_back(parameter.detach().clone());
    }
  }
  Tensors out;
  for (const auto& [name, list] : history) out[name] = at::stack(list);
  return out;
}

}  // namespace semvq
