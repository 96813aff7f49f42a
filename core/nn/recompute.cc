#include "core/nn/recompute.h"

#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include <array>
#include <mutex>
#include <utility>

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::array<at::DeviceType, 2> kDevices = {at::kCPU, at::kCUDA};

at::Tensor GeneratorState(const at::Device& device) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void SetGeneratorState(const at::Device& device, const at::Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

// The default generators that fn may draw from: the CPU's, and that of the GPU
// its tensors are on.
class Draws {
 public:
  explicit Draws(const variable_list& tensors) {
    devices_.push_back(at::kCPU);
    for (const at::Tensor& t : tensors) {
      if (t.defined() && t.is_cuda()) {
        devices_.push_back(t.device());
        break;
      }
    }
    for (const at::Device& device : devices_)
      states_.push_back(GeneratorState(device));
  }
  void Restore() const {
    for (size_t i = 0; i < devices_.size(); ++i)
      SetGeneratorState(devices_[i], states_[i]);
  }

 private:
  std::vector<at::Device> devices_;
  std::vector<at::Tensor> states_;
};

// Autocast as it was when this was made.
class AutocastState {
 public:
  AutocastState() {
    for (size_t i = 0; i < kDevices.size(); ++i) {
      enabled_[i] = at::autocast::is_autocast_enabled(kDevices[i]);
      type_[i] = at::autocast::get_autocast_dtype(kDevices[i]);
    }
  }
  void Set() const {
    for (size_t i = 0; i < kDevices.size(); ++i) {
      at::autocast::set_autocast_enabled(kDevices[i], enabled_[i]);
      at::autocast::set_autocast_dtype(kDevices[i], type_[i]);
    }
  }

 private:
  std::array<bool, kDevices.size()> enabled_;
  std::array<at::ScalarType, kDevices.size()> type_;
};

// Autocast and draws of the forward, in a scope of the backward.
class Replay {
 public:
  Replay(const Draws& draws, const AutocastState& autocast,
         const variable_list& tensors)
      : draws_now_(tensors) {
    draws.Restore();
    autocast.Set();
    at::autocast::increment_nesting();
  }
  ~Replay() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    autocast_now_.Set();
    draws_now_.Restore();
  }
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

 private:
  const Draws draws_now_;
  const AutocastState autocast_now_;
};

struct Call : torch::CustomClassHolder {
  Call(TensorListFunction f, size_t n, const variable_list& tensors)
      : fn(std::move(f)), inputs(n), draws(tensors) {}
  const TensorListFunction fn;
  const size_t inputs;  // Of the saved tensors; the rest are parameters.
  const Draws draws;
  const AutocastState autocast;
};

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  // Gradients are off in here.
  static at::Tensor forward(AutogradContext* ctx,
                            const c10::intrusive_ptr<Call>& call,
                            at::TensorList tensors) {
    variable_list saved = tensors.vec();
    const variable_list inputs(saved.begin(), saved.begin() + call->inputs);
    RECORD_USER_SCOPE(kRecomputeScope);
    at::Tensor out = call->fn(inputs);
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    ctx->save_for_backward(std::move(saved));
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "activation checkpointing has no gradients of gradients");
    const auto call = c10::static_intrusive_pointer_cast<Call>(
        ctx->saved_data["call"].toCapsule());
    const variable_list saved = ctx->get_saved_variables();
    variable_list inputs, wanted;
    std::vector<size_t> places;
    for (size_t i = 0; i < saved.size(); ++i) {
      const bool input = i < call->inputs;
      at::Tensor t = saved[i];
      // Inputs are cut off from what computed them; parameters are leaves.
      if (input && t.defined())
        t = t.detach().requires_grad_(t.requires_grad());
      if (t.defined() && t.requires_grad()) {
        wanted.push_back(t);
        places.push_back(i);
      }
      if (input) inputs.push_back(t);
    }
    // The first result is the gradient for `call`: none.
    variable_list out(1 + saved.size());
    if (!grads[0].defined() || wanted.empty()) return out;
    at::Tensor value;
    {
      at::AutoGradMode grad_mode(true);
      Replay replay(call->draws, call->autocast, saved);
      value = call->fn(inputs);
    }
    const variable_list found = torch::autograd::grad(
        {value}, wanted, {grads[0]}, /*retain_graph=*/false,
        /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < places.size(); ++i) out[1 + places[i]] = found[i];
    return out;
  }
};

}  // namespace

at::Tensor Recompute(const TensorListFunction& fn,
                     const std::vector<at::Tensor>& inputs,
                     const std::vector<at::Tensor>& parameters) {
  if (!at::GradMode::is_enabled()) return fn(inputs);
  variable_list tensors = inputs;
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  const auto call = c10::make_intrusive<Call>(fn, inputs.size(), tensors);
  return RecomputeFunction::apply(call, at::TensorList(tensors));
}

}  // namespace semvq
