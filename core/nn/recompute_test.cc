#include "core/nn/recompute.h"

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/layers.h"
#include "core/nn/testing.h"
#include "core/nn/transformer.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 8, kDepth = 3;

// A stack with cross-attention, dropout and stochastic depth.
std::shared_ptr<BlockStack> Stack(bool recompute) {
  TransformerOptions options;
  options.dim = kDim;
  options.heads = 2;
  options.cross_dim = 6;
  options.dropout = 0.3;
  options.attention_dropout = 0.2;
  options.drop_path = 0.4;
  options.recompute = recompute;
  torch::manual_seed(1);
  auto stack = std::make_shared<BlockStack>(options, kDepth);
  stack->train();
  return stack;
}

struct Pass {
  at::Tensor out;
  std::map<std::string, at::Tensor> grads;
  at::Tensor next;  // What the default generator gives after the backward.
};

// Two passes through one stack, as clean and masked images make them.
Pass Train(bool recompute, at::ScalarType type = at::kFloat) {
  auto stack = Stack(recompute);
  stack->to(type);
  torch::manual_seed(2);
  at::Tensor x = at::randn({4, 5, kDim}, type).requires_grad_(true);
  at::Tensor memory = at::randn({4, 3, 6}, type).requires_grad_(true);
  const at::Tensor mask =
      at::ones({4, 5}, at::kBool)
          .index_put_({torch::tensor({1}), torch::tensor({4})},
                      torch::tensor(false));
  const CrossMemory other{memory, {}, {}};
  Pass run;
  run.out = stack->Forward(x, mask, {&other, 1}) +
            stack->Forward(x * 2, {}, {&other, 1}).sin();
  (run.out * at::randn_like(run.out)).sum().backward();
  run.next = at::rand({3});
  run.grads["x"] = x.grad();
  run.grads["memory"] = memory.grad();
  for (const auto& p : stack->named_parameters())
    run.grads[p.key()] = p.value().grad();
  return run;
}

// A stack whose keys and values are another's.
TEST(RecomputeTest, SharedParametersGetTheirGradient) {
  std::map<std::string, at::Tensor> grads[2];
  for (const bool recompute : {false, true}) {
    auto own = Stack(recompute);
    TransformerOptions options;
    options.dim = kDim;
    options.heads = 2;
    options.cross_dim = 6;
    options.recompute = recompute;
    torch::manual_seed(5);
    BlockStack other(options, kDepth, own.get());
    for (const auto& p : other.named_parameters())
      EXPECT_EQ(p.key().find(".kv."), std::string::npos) << p.key();
    EXPECT_EQ(other.parameters().size() + 2 * kDepth, own->parameters().size());
    // Only `other` computes, with its own parameters and the shared ones.
    const CrossMemory memory{at::randn({4, 3, 6}), {}, {}};
    const at::Tensor x = at::randn({4, 5, kDim});
    const at::Tensor out = other.Forward(x, {}, {&memory, 1});
    const at::Tensor before = out.detach().clone();
    (out * at::randn_like(out)).sum().backward();
    for (const auto& p : other.named_parameters())
      grads[recompute]["other." + p.key()] = p.value().grad();
    for (const auto& p : own->named_parameters()) {
      const bool shared = p.key().find(".kv.") != std::string::npos;
      EXPECT_EQ(p.value().grad().defined(), shared) << p.key();
      if (shared) grads[recompute][p.key()] = p.value().grad();
    }
    // It stays shared when the module is moved.
    own->to(at::kDouble);
    other.to(at::kDouble);
    const CrossMemory wide{memory.values.to(at::kDouble), {}, {}};
    EXPECT_TRUE(at::allclose(
        other.Forward(x.to(at::kDouble), {}, {&wide, 1}).to(at::kFloat), before,
        1e-4, 1e-5));
    {
      at::NoGradGuard no_grad;
      own->named_parameters()["0.cross_attn.kv.weight"].mul_(5);
    }
    EXPECT_FALSE(at::allclose(
        other.Forward(x.to(at::kDouble), {}, {&wide, 1}).to(at::kFloat), before,
        1e-4, 1e-5));
  }
  ASSERT_EQ(grads[0].size(), grads[1].size());
  for (const auto& [name, grad] : grads[0]) {
    EXPECT_GT(grad.abs().sum().item<double>(), 0) << name;
    EXPECT_TRUE(at::equal(grad, grads[1].at(name))) << name;
  }
  TransformerOptions options;
  options.dim = kDim;
  options.heads = 2;
  options.cross_dim = 6;
  EXPECT_THROW(BlockStack(options, kDepth + 1, Stack(false).get()), c10::Error);
  options.cross_dim = 7;
  EXPECT_THROW(BlockStack(options, kDepth, Stack(false).get()), c10::Error);
}

TEST(RecomputeTest, GradientsAreEqualBitByBit) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const Pass without = Train(false, type), with = Train(true, type);
    EXPECT_TRUE(at::equal(without.out, with.out));
    EXPECT_TRUE(at::equal(without.next, with.next))
        << "the backward changed the draws after it";
    ASSERT_EQ(without.grads.size(), with.grads.size());
    for (const auto& [name, grad] : without.grads) {
      ASSERT_TRUE(grad.defined() && with.grads.at(name).defined()) << name;
      EXPECT_GT(grad.abs().sum().item<double>(), 0) << name;
      EXPECT_TRUE(at::equal(grad, with.grads.at(name))) << name;
    }
  }
}

TEST(RecomputeTest, GradientsAreRight) {
  torch::manual_seed(3);
  Linear linear(4, 4);
  linear.to(at::kDouble);
  const auto fn = [&](const std::vector<at::Tensor>& x) {
    return at::tanh(linear.Forward(x[0]) * x[1]);
  };
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>& x) {
        return Recompute(fn, {x[0], x[1]}, {linear.weight, linear.bias});
      },
      {at::randn({3, 4}, at::kDouble).requires_grad_(true),
       at::randn({3, 4}, at::kDouble).requires_grad_(true), linear.weight,
       linear.bias});
  EXPECT_TRUE(status.ok()) << status;
}

// A parameter's gradient is accumulated once a backward, however often it is
// used: c10d's reducer counts on it.
TEST(RecomputeTest, ParametersAreAccumulatedOnceABackward) {
  torch::manual_seed(4);
  Linear linear(4, 4);
  int calls = 0;
  const std::shared_ptr<torch::autograd::Node> accumulator =
      torch::autograd::impl::grad_accumulator(linear.weight);
  accumulator->add_post_hook(
      std::make_unique<torch::autograd::utils::LambdaPostHook>(
          [&](const torch::autograd::variable_list& outputs,
              const torch::autograd::variable_list&) {
            ++calls;
            return outputs;
          }));
  const auto fn = [&](const std::vector<at::Tensor>& x) {
    return linear.Forward(x[0]);
  };
  at::Tensor x = at::randn({2, 4});
  for (int i = 0; i < 3; ++i)
    x = Recompute(fn, {x}, {linear.weight, linear.bias});
  x.sum().backward();
  EXPECT_EQ(calls, 1);
}

TEST(RecomputeTest, KeepsTheInputsAlone) {
  int calls = 0;
  const auto fn = [&](const std::vector<at::Tensor>& x) {
    ++calls;
    return x[0].exp().exp();
  };
  const at::Tensor x = at::zeros({3}).requires_grad_(true);
  const at::Tensor y = Recompute(fn, {x}, {});
  EXPECT_EQ(calls, 1);
  y.sum().backward({}, /*retain_graph=*/true);
  EXPECT_EQ(calls, 2);
  // Again, as the gradients' shares are measured.
  y.sum().backward();
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(at::allclose(x.grad(), at::full({3}, 2 * std::exp(1.0))));
  {
    at::NoGradGuard no_grad;
    Recompute(fn, {x}, {});
  }
  EXPECT_EQ(calls, 4);
}

TEST(RecomputeTest, RunsUnderTheAutocastOfTheForward) {
  std::vector<at::ScalarType> types;
  Linear linear(8, 8);
  const auto fn = [&](const std::vector<at::Tensor>& x) {
    const at::Tensor y = at::linear(x[0], linear.weight);
    types.push_back(y.scalar_type());
    return y;
  };
  const at::Tensor x = at::randn({2, 8}).requires_grad_(true);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const at::Tensor y = Recompute(fn, {x}, {linear.weight});
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  y.sum().backward();
  EXPECT_EQ(types, std::vector<at::ScalarType>(2, at::kBFloat16));
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(linear.weight.grad().scalar_type(), at::kFloat);
}

TEST(RecomputeTest, GradientsOfGradientsAreRefused) {
  const at::Tensor x = at::randn({3}).requires_grad_(true);
  const at::Tensor y = Recompute(
      [](const std::vector<at::Tensor>& in) { return in[0].exp(); }, {x}, {});
  EXPECT_THROW(torch::autograd::grad({y.sum()}, {x}, {}, true,
                                     /*create_graph=*/true),
               c10::Error);
}

TEST(RecomputeTest, EvaluationIsThatWithout) {
  auto with = Stack(true), without = Stack(false);
  with->eval();
  without->eval();
  const at::Tensor x = at::randn({2, 5, kDim});
  EXPECT_TRUE(at::equal(with->Forward(x), without->Forward(x)));
}

}  // namespace
}  // namespace semvq
