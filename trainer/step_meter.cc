#include "trainer/step_meter.h"

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <c10/core/GradMode.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/types.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "core/nn/recompute.h"

namespace semvq {
namespace {

using Inputs = c10::ArrayRef<const c10::IValue>;

constexpr absl::string_view kOneDnnLinear = "mkldnn::_linear_pointwise";
// Of kernels/short_attention.cc, which records the packed tensor that the
// queries are in, then queries, keys and values.
constexpr absl::string_view kShortAttention = "semvq::short_attention";
constexpr absl::string_view kShortAttentionBackward =
    "semvq::short_attention_backward";

double Numel(const at::Tensor& t) { return static_cast<double>(t.numel()); }

// q [.., Q, d], k [.., K, d], v [.., K, dv]: both products.
double AttentionFlops(const at::Tensor& q, const at::Tensor& k,
                      const at::Tensor& v) {
  const double queries = Numel(q) / static_cast<double>(q.size(-1));
  return 2 * queries *
         static_cast<double>(k.size(-2) * (k.size(-1) + v.size(-1)));
}

// Of input [N, C, ...] with weight [out, in / groups, ...].
double ConvolutionFlops(const at::Tensor& input, const at::Tensor& weight,
                        const std::vector<int64_t>& stride,
                        const std::vector<int64_t>& padding,
                        const std::vector<int64_t>& dilation, bool transposed) {
  // Each input element of a transposed convolution, and each output element of
  // a plain one, meets so many weights.
  if (transposed) {
    return 2 * Numel(input) * Numel(weight) /
           static_cast<double>(weight.size(0));
  }
  double positions = static_cast<double>(input.size(0));
  for (int64_t d = 2; d < input.dim(); ++d) {
    // Each list may hold one number for all dimensions.
    const auto of = [d](const std::vector<int64_t>& list) {
      return list[std::min<size_t>(d - 2, list.size() - 1)];
    };
    positions *= static_cast<double>((input.size(d) + 2 * of(padding) -
                                      of(dilation) * (weight.size(d) - 1) - 1) /
                                         of(stride) +
                                     1);
  }
  return 2 * positions * Numel(weight);
}

// What one call of an operator computes; false for those that are not counted
// (elementwise ones, and those made of others).
bool Count(absl::string_view name, Inputs in, Flops& out) {
  if (name == kShortAttention || name == kShortAttentionBackward) {
    if (in.size() < 4) return false;
    out.attention =
        AttentionFlops(in[1].toTensor(), in[2].toTensor(), in[3].toTensor()) *
        (name == kShortAttention ? 1 : 2);
    return true;
  }
  if (!absl::ConsumePrefix(&name, "aten::")) {
    if (name != kOneDnnLinear || in.size() < 2) return false;
    out.matmul = 2 * Numel(in[0].toTensor()) *
                 static_cast<double>(in[1].toTensor().size(0));
    return true;
  }
  const auto tensor = [&in](size_t i) -> const at::Tensor& {
    return in[i].toTensor();
  };
  const auto product = [&](size_t left, size_t right) {
    out.matmul = 2 * Numel(tensor(left)) *
                 static_cast<double>(
                     tensor(right).dim() > 1 ? tensor(right).size(-1) : 1);
    return true;
  };
  if (name == "mm" || name == "bmm" || name == "mv" || name == "dot") {
    return product(0, 1);
  }
  if (name == "addmm" || name == "baddbmm" || name == "addmv" ||
      name == "addbmm") {
    return product(1, 2);
  }
  if (name == "convolution") {
    out.convolution = ConvolutionFlops(tensor(0), tensor(1),
                                       in[3].toIntVector(), in[4].toIntVector(),
                                       in[5].toIntVector(), in[6].toBool());
    return true;
  }
  if (name == "convolution_backward") {
    const double one = ConvolutionFlops(
        tensor(1), tensor(2), in[4].toIntVector(), in[5].toIntVector(),
        in[6].toIntVector(), in[7].toBool());
    const auto mask = in[10].toBoolList();
    out.convolution = one * ((mask.get(0) ? 1 : 0) + (mask.get(1) ? 1 : 0));
    return true;
  }
  if (absl::StartsWith(name, "_scaled_dot_product_") &&
      !absl::StrContains(name, "math")) {
    const bool backward = absl::EndsWith(name, "_backward");
    const size_t q = backward ? 1 : 0;
    out.attention = AttentionFlops(tensor(q), tensor(q + 1), tensor(q + 2)) *
                    (backward ? 2 : 1);
    return true;
  }
  return false;
}

struct OpContext : at::ObserverContext {
  enum Kind { kCounted, kBackwardNode, kScope };
  explicit OpContext(Kind k) : kind(k) {}
  Kind kind;
};

// Operators inside a counted one are parts of it.
thread_local int counted_depth = 0;
thread_local int backward_depth = 0;
struct Scope {
  std::string label;
  bool recompute = false;  // See core/nn/recompute.h.
};
std::vector<Scope>& Scopes() {
  thread_local std::vector<Scope> scopes;
  return scopes;
}

// The forward of an autograd::Function runs with gradients switched off. Of our
// own, Recompute says where it is, and for the linear layer (core/nn/layers.cc)
// and attention over few keys what they are given tells whether a graph is
// made.
bool MakesGraph(absl::string_view name, Inputs inputs) {
  if (c10::GradMode::is_enabled()) return true;
  if (!Scopes().empty() && Scopes().back().recompute) return true;
  if (name == kShortAttention) return inputs[0].toTensor().requires_grad();
  return name == kOneDnnLinear && (inputs[0].toTensor().requires_grad() ||
                                   inputs[1].toTensor().requires_grad());
}

}  // namespace

Flops& Flops::operator+=(const Flops& other) {
  matmul += other.matmul;
  attention += other.attention;
  convolution += other.convolution;
  return *this;
}

class StepMeter::State : public c10::MemoryReportingInfoBase {
 public:
  explicit State(c10::Device device) : device_(device) {}

  void reportMemoryUsage(void*, int64_t size, size_t, size_t,
                         c10::Device device) override {
    if (device.type() != device_.type()) return;
    std::lock_guard<std::mutex> lock(mutex_);
    live_ += size;
    peak_ = std::max(peak_, live_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  void Start() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Flops& f : flops_) f = {};
    by_scope_.clear();
    peak_ = start_ = live_;
    backward_start_ = -1;
  }

  void OnBackward() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (backward_start_ < 0) backward_start_ = live_;
  }

  void Add(Phase phase, const std::string& scope, const Flops& flops) {
    std::lock_guard<std::mutex> lock(mutex_);
    flops_[phase] += flops;
    if (phase != kBackward) by_scope_[scope] += flops;
  }

  const c10::Device device_;
  std::mutex mutex_;
  Flops flops_[kPhases];
  std::map<std::string, Flops> by_scope_;
  int64_t live_ = 0, peak_ = 0, start_ = 0, backward_start_ = -1;
};

namespace {

// Callbacks are plain functions: they find the meter here.
std::atomic<StepMeter::State*> active_state{nullptr};

std::unique_ptr<at::ObserverContext> OnStart(const at::RecordFunction& fn) {
  StepMeter::State* state = active_state.load();
  if (state == nullptr) return nullptr;
  if (fn.scope() == at::RecordScope::BACKWARD_FUNCTION) {
    state->OnBackward();
    ++backward_depth;
    return std::make_unique<OpContext>(OpContext::kBackwardNode);
  }
  if (fn.scope() == at::RecordScope::USER_SCOPE) {
    Scope scope{fn.name(), false};
    if (scope.label == kRecomputeScope) {
      scope = {Scopes().empty() ? "" : Scopes().back().label, true};
    }
    Scopes().push_back(std::move(scope));
    return std::make_unique<OpContext>(OpContext::kScope);
  }
  if (counted_depth > 0) return nullptr;
  Flops flops;
  if (!Count(fn.name(), fn.inputs(), flops)) return nullptr;
  const StepMeter::Phase phase = backward_depth > 0 ? StepMeter::kBackward
                                 : MakesGraph(fn.name(), fn.inputs())
                                     ? StepMeter::kForward
                                     : StepMeter::kNoGrad;
  state->Add(phase, Scopes().empty() ? "" : Scopes().back().label, flops);
  ++counted_depth;
  return std::make_unique<OpContext>(OpContext::kCounted);
}

void OnEnd(const at::RecordFunction&, at::ObserverContext* context) {
  const auto* op = static_cast<const OpContext*>(context);
  if (op == nullptr) return;
  switch (op->kind) {
    case OpContext::kCounted:
      --counted_depth;
      break;
    case OpContext::kBackwardNode:
      --backward_depth;
      break;
    case OpContext::kScope:
      Scopes().pop_back();
      break;
  }
}

}  // namespace

class StepMeter::Guard {
 public:
  explicit Guard(const std::shared_ptr<State>& state)
      : memory_(c10::DebugInfoKind::PROFILER_STATE, state) {
    active_state = state.get();
    handle_ =
        at::addGlobalCallback(at::RecordFunctionCallback(&OnStart, &OnEnd)
                                  .needsInputs(true)
                                  .scopes({at::RecordScope::FUNCTION,
                                           at::RecordScope::BACKWARD_FUNCTION,
                                           at::RecordScope::USER_SCOPE}));
  }
  ~Guard() {
    at::removeCallback(handle_);
    active_state = nullptr;
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  c10::DebugInfoGuard memory_;
  at::CallbackHandle handle_ = 0;
};

StepMeter::StepMeter(c10::Device device)
    : state_(std::make_shared<State>(device)) {
  TORCH_CHECK(active_state.load() == nullptr,
              "there is a StepMeter already; one counts at a time");
  guard_ = std::make_unique<Guard>(state_);
}

StepMeter::~StepMeter() = default;

void StepMeter::Start() { state_->Start(); }
const Flops& StepMeter::flops(Phase phase) const {
  return state_->flops_[phase];
}
const std::map<std::string, Flops>& StepMeter::forward_by_scope() const {
  return state_->by_scope_;
}
int64_t StepMeter::live_bytes() const { return state_->live_; }
int64_t StepMeter::peak_bytes() const { return state_->peak_; }
int64_t StepMeter::start_bytes() const { return state_->start_; }
int64_t StepMeter::backward_start_bytes() const {
  return std::max<int64_t>(state_->backward_start_, 0);
}

}  // namespace semvq
