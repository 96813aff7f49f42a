// What --mode=plan counts and computes.

#include "trainer/plan.h"

#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "core/nn/attention.h"
#include "core/nn/layers.h"
#include "trainer/autocast.h"
#include "trainer/step_meter.h"

namespace semvq {
namespace {

at::Tensor Leaf(at::IntArrayRef sizes) {
  return at::randn(sizes).requires_grad_(true);
}

TEST(StepMeterTest, CountsProductsForwardAndBackward) {
  StepMeter meter(at::kCPU);
  // Small ones run on ATen's product, large ones on oneDNN's.
  for (int64_t rows : {4, 512}) {
    const at::Tensor x = Leaf({rows, 256}), weight = Leaf({128, 256}),
                     bias = Leaf({128});
    const double one = 2.0 * rows * 256 * 128;
    meter.Start();
    const at::Tensor loss = LinearOp(x, weight, bias).sum();
    EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, one);
    loss.backward();
    EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, one);
    EXPECT_EQ(meter.flops(StepMeter::kBackward).matmul, 2 * one);

    // No gradient to the input: one product less.
    meter.Start();
    LinearOp(x.detach(), weight, bias).sum().backward();
    EXPECT_EQ(meter.flops(StepMeter::kBackward).matmul, one);
    EXPECT_EQ(meter.flops(StepMeter::kBackward).total(), one);
  }
}

TEST(StepMeterTest, CountsBatchedProducts) {
  StepMeter meter(at::kCPU);
  meter.Start();
  at::matmul(at::randn({2, 3, 4, 5}), at::randn({2, 3, 5, 6}));
  at::mv(at::randn({7, 8}), at::randn({8}));
  at::matmul(at::randn({9, 10}), at::randn({10, 11}));
  EXPECT_EQ(meter.flops(StepMeter::kForward).total(),
            2.0 * (2 * 3 * 4 * 5 * 6 + 7 * 8 + 9 * 10 * 11));
}

TEST(StepMeterTest, CountsAttentionOfTheFusedKernelAndOfItsSteps) {
  StepMeter meter(at::kCPU);
  const at::Tensor q = Leaf({2, 3, 10, 8}), k = Leaf({2, 3, 12, 8}),
                   v = Leaf({2, 3, 12, 8});
  const double one = 2 * 2.0 * 2 * 3 * 10 * 12 * 8;
  meter.Start();
  Attend(q, k, v, {}, false, 0.0).sum().backward();
  EXPECT_EQ(meter.flops(StepMeter::kForward).attention, one);
  EXPECT_EQ(meter.flops(StepMeter::kBackward).attention, 2 * one);
  EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, 0);

  AttentionTap tap;
  tap.enabled = true;
  meter.Start();
  Attend(q, k, v, {}, false, 0.0, &tap).sum().backward();
  EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, one);
  EXPECT_EQ(meter.flops(StepMeter::kBackward).matmul, 2 * one);
}

// By the kernels for few keys where the processor has them, else by products.
TEST(StepMeterTest, CountsAttentionInBfloat16) {
  SelfAttention self(32, 2);
  CrossAttention cross(32, 2, 32);
  const at::Tensor x = Leaf({3, 10, 32}), memory = Leaf({3, 12, 32});
  StepMeter meter(at::kCPU);
  meter.Start();
  {
    Autocast autocast(true, at::kCPU);
    at::Tensor y = self.Forward(x);
    CrossMemory read;
    read.values = memory;
    y = cross.Forward(y, read);
    y.sum().backward();
  }
  const double scores = 2 * 2.0 * 3 * 32 * (10 * 10 + 10 * 12);
  const double projections =
      2.0 * 3 * 32 * 32 * (10 * (3 + 1 + 1 + 1) + 12 * 2);
  EXPECT_EQ(meter.flops(StepMeter::kForward).total(), scores + projections);
  EXPECT_EQ(meter.flops(StepMeter::kBackward).total(),
            2 * (scores + projections));
}

TEST(StepMeterTest, CountsConvolutions) {
  StepMeter meter(at::kCPU);
  const at::Tensor x = Leaf({2, 4, 9, 7}), weight = Leaf({6, 2, 3, 3});
  // Of 9 x 7, padded by 1, steps of 2: 5 x 4 places.
  const double one = 2.0 * 2 * 6 * (5 * 4) * 2 * (3 * 3);
  meter.Start();
  at::conv2d(x, weight, {}, {2, 2}, {1, 1}, {1, 1}, 2).sum().backward();
  EXPECT_EQ(meter.flops(StepMeter::kForward).convolution, one);
  EXPECT_EQ(meter.flops(StepMeter::kBackward).convolution, 2 * one);

  // One number for both sides.
  meter.Start();
  const std::vector<int64_t> two = {2}, same = {1};
  at::conv2d(x, weight, {}, two, same, same, 2);
  EXPECT_EQ(meter.flops(StepMeter::kForward).convolution, one);
  EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, 0);
}

TEST(StepMeterTest, TellsPhasesAndScopesApart) {
  StepMeter meter(at::kCPU);
  const at::Tensor a = Leaf({4, 4});
  meter.Start();
  {
    RECORD_USER_SCOPE("outer");
    at::mm(a, a);
    {
      RECORD_USER_SCOPE("inner");
      c10::NoGradGuard no_grad;
      at::mm(a, a);
      at::mm(a, a);
    }
    at::mm(a, a);
  }
  at::mm(a, a);
  EXPECT_EQ(meter.flops(StepMeter::kForward).matmul, 3 * 128.0);
  EXPECT_EQ(meter.flops(StepMeter::kNoGrad).matmul, 2 * 128.0);
  const auto& scopes = meter.forward_by_scope();
  EXPECT_EQ(scopes.at("outer").matmul, 2 * 128.0);
  EXPECT_EQ(scopes.at("inner").matmul, 2 * 128.0);
  EXPECT_EQ(scopes.at("").matmul, 128.0);
}

TEST(StepMeterTest, MeasuresWhatIsAlive) {
  StepMeter meter(at::kCPU);
  const int64_t before = meter.live_bytes();
  const at::Tensor kept = at::zeros({1 << 18});  // 1 MiB
  EXPECT_EQ(meter.live_bytes() - before, 1 << 20);
  meter.Start();
  EXPECT_EQ(meter.start_bytes(), meter.live_bytes());
  { const at::Tensor gone = at::zeros({1 << 19}); }
  EXPECT_EQ(meter.live_bytes(), meter.start_bytes());
  EXPECT_EQ(meter.peak_bytes() - meter.start_bytes(), 2 << 20);

  // exp keeps its result for the backward.
  const at::Tensor x = Leaf({1 << 18});
  meter.Start();
  {
    const at::Tensor loss = x.exp().exp().sum();
    loss.backward();
  }
  const int64_t saved = meter.backward_start_bytes() - meter.start_bytes();
  EXPECT_GE(saved, 2 << 20);
  EXPECT_LT(saved, 3 << 20);
  // Nothing but the gradient is left.
  EXPECT_EQ(meter.live_bytes() - meter.start_bytes(), 1 << 20);
}

TEST(StepMeterTest, OneAtATime) {
  {
    StepMeter meter(at::kCPU);
    EXPECT_THROW(StepMeter second(at::kCPU), c10::Error);
  }
  StepMeter after(at::kCPU);
}

TEST(PlanTest, LargestBatchFillsWhatIsLeft) {
  MemoryPlan memory;
  memory.weights = 100;
  memory.gradients = 100;
  memory.optimizer = 200;
  memory.teacher = 110;
  memory.buffers = 10;
  memory.activations_fixed = 30;
  memory.activations_per_image = 50;
  EXPECT_EQ(memory.Total(3), 700);
  EXPECT_EQ(memory.LargestBatch(700), 3);
  EXPECT_EQ(memory.LargestBatch(699), 2);
  EXPECT_EQ(memory.LargestBatch(550), 0);
}

TEST(PlanTest, DaysAreWorkOverRate) {
  // 1e6 samples of 1e12 operations on 4 of 1e14 at one half: 5,000 s.
  EXPECT_NEAR(TrainingDays(1e6, 1e12, 4, 1e14, 0.5), 5000.0 / 86400, 1e-12);
}

}  // namespace
}  // namespace semvq
