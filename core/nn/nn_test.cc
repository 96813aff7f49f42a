#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/attention.h"
#include "core/nn/layers.h"
#include "core/nn/position.h"
#include "core/nn/testing.h"
#include "core/nn/transformer.h"

namespace semvq {
namespace {

at::Tensor Double(at::IntArrayRef shape, bool gradient = true) {
  return at::randn(shape, at::kDouble).set_requires_grad(gradient);
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

// All parameters, redrawn with a spread that makes gradients visible.
std::vector<at::Tensor> Spread(torch::nn::Module& module) {
  at::NoGradGuard no_grad;
  module.to(at::kDouble);
  std::vector<at::Tensor> parameters = module.parameters();
  for (at::Tensor& p : parameters) p.normal_(p.dim() == 1 ? 0.5 : 0.0, 0.4);
  return parameters;
}

class NnTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

TEST_F(NnTest, TruncatedNormalHasTheMomentsOfItsLaw) {
  const at::Tensor x = TruncatedNormal(at::empty({200000}), 0.02);
  EXPECT_LE(x.abs().max().item<double>(), 0.04 + 1e-6);
  EXPECT_NEAR(x.mean().item<double>(), 0.0, 2e-4);
  // Standard deviation of a unit normal cut at +-2: 0.8796.
  EXPECT_NEAR(x.std().item<double>(), 0.02 * 0.8796, 2e-4);
}

TEST_F(NnTest, LinearOpAgreesWithDoubleAtEverySize) {
  // Below and above the size where the GEMM changes.
  for (int64_t rows : {3, 700}) {
    for (bool with_bias : {true, false}) {
      Linear linear(96, 160, with_bias);
      linear.weight.detach().normal_();
      if (with_bias) linear.bias.detach().normal_();
      at::Tensor x = at::randn({2, rows, 96}).set_requires_grad(true);
      const at::Tensor g = at::randn({2, rows, 160});
      const at::Tensor y = linear.Forward(x);
      y.backward(g);

      const at::Tensor xd = x.detach().to(at::kDouble);
      const at::Tensor wd = linear.weight.detach().to(at::kDouble);
      const at::Tensor gd = g.to(at::kDouble).flatten(0, 1);
      at::Tensor want = at::matmul(xd, wd.t());
      if (with_bias) want = want + linear.bias.detach();
      EXPECT_LT(MaxDifference(y, want), 1e-4);
      EXPECT_LT(MaxDifference(x.grad().flatten(0, 1), at::mm(gd, wd)), 1e-4);
      EXPECT_LT(
          MaxDifference(linear.weight.grad(), at::mm(gd.t(), xd.flatten(0, 1))),
          2e-3);
      if (with_bias) {
        EXPECT_LT(MaxDifference(linear.bias.grad(), gd.sum(0)), 1e-3);
      }
    }
  }
}

TEST_F(NnTest, LinearOpIsTwiceDifferentiableAndSkipsUnneededGradients) {
  Linear linear(128, 256);
  at::Tensor x = at::randn({512, 128}).set_requires_grad(true);
  const at::Tensor g = torch::autograd::grad({linear.Forward(x).pow(2).sum()},
                                             {x}, {}, true, true)[0];
  g.pow(2).sum().backward();
  // d/dx |2 W^T (W x + b)|^2 = 2 (2 W^T W) g, row by row.
  const at::Tensor w = linear.weight.detach();
  const at::Tensor gram = at::mm(w.t(), w) * 2;
  const at::Tensor want = 2 * at::mm(g.detach(), gram);
  EXPECT_LT(MaxDifference(x.grad(), want),
            1e-3 * want.abs().max().item<double>());

  const at::Tensor constant = at::randn({512, 128});
  linear.Forward(constant).sum().backward();
  EXPECT_FALSE(constant.grad().defined());
  EXPECT_TRUE(linear.weight.grad().defined());
}

TEST_F(NnTest, LinearOpRunsInAutocastPrecision) {
  Linear linear(128, 256);
  const at::Tensor x = at::randn({512, 128});
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  const at::Tensor y = linear.Forward(x);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LT(MaxDifference(y.to(at::kFloat), linear.Forward(x)), 0.02);
}

TEST_F(NnTest, BlocksRunInAutocast) {
  TransformerOptions options;
  options.dim = 64;
  options.heads = 4;
  options.cross_dim = 32;
  for (double dropout : {0.0, 0.1}) {
    options.attention_dropout = dropout;
    TransformerBlock block(options);
    const at::Tensor x = at::randn({3, 5, 64}).set_requires_grad(true);
    const CrossMemory memory{at::randn({3, 7, 32}), {}, {}};
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    torch::manual_seed(3);
    const at::Tensor half = block.Forward(x, {}, {memory});
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::clear_cache();
    torch::manual_seed(3);
    const at::Tensor full = block.Forward(x, {}, {memory});
    EXPECT_EQ(half.scalar_type(), at::kFloat);  // The residual stream stays.
    EXPECT_GT(MaxDifference(half, full), 0.0);
    EXPECT_LT(MaxDifference(half, full), 0.02);
    half.sum().backward();
    EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  }
}

// Few keys are attended to by bfloat16 products, many by the fused kernel.
TEST_F(NnTest, AttentionInAutocastOverFewAndManyKeys) {
  for (int64_t tokens : {65, 200}) {
    SelfAttention attention(64, 4, {});
    const at::Tensor x = at::randn({3, tokens, 64}).set_requires_grad(true);
    at::Tensor mask = at::ones({3, tokens}, at::kBool);
    mask.slice(1, tokens - 20).fill_(false);
    const at::Tensor weights = at::randn({3, tokens, 64});
    const auto run = [&](bool autocast) {
      at::autocast::set_autocast_enabled(at::kCPU, autocast);
      at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
      const at::Tensor y = attention.Forward(x, mask);
      at::autocast::set_autocast_enabled(at::kCPU, false);
      at::autocast::clear_cache();
      x.mutable_grad() = at::Tensor();
      (y * weights).sum().backward();
      return std::make_pair(y.detach().to(at::kFloat), x.grad().clone());
    };
    const auto [full, full_gradient] = run(false);
    const auto [half, half_gradient] = run(true);
    EXPECT_GT(MaxDifference(half, full), 0.0);
    EXPECT_LT(MaxDifference(half, full), 0.02 * full.abs().max().item<double>())
        << tokens;
    EXPECT_LT(MaxDifference(half_gradient, full_gradient),
              0.02 * full_gradient.abs().max().item<double>())
        << tokens;
  }
}

TEST_F(NnTest, DropoutKeepsTheMeanAndTheRate) {
  const at::Tensor x = at::ones({1003, 301}).set_requires_grad(true);
  const at::Tensor y = Dropout(x, 0.1, true);
  EXPECT_NEAR(y.mean().item<double>(), 1.0, 3e-3);
  const at::Tensor kept = y != 0;
  EXPECT_NEAR(kept.to(at::kFloat).mean().item<double>(), 0.9, 3e-3);
  EXPECT_NEAR(y.max().item<double>(), 1 / 0.9, 1e-4);
  // Neighbours are independent.
  const at::Tensor flat = kept.flatten().to(at::kFloat);
  for (int64_t lag : {1, 2, 4, 301}) {
    const int64_t n = flat.size(0) - lag;
    EXPECT_NEAR(
        (flat.narrow(0, 0, n) * flat.narrow(0, lag, n)).mean().item<double>(),
        0.81, 4e-3)
        << lag;
  }
  y.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), y.detach()));
  EXPECT_FALSE(at::equal(Dropout(x, 0.1, true), y));
  EXPECT_TRUE(Dropout(x, 0.1, false).is_same(x));
  EXPECT_EQ(Dropout(x, 1.0, true).abs().max().item<double>(), 0.0);
}

TEST_F(NnTest, DropoutDoesNotDependOnThreads) {
  const at::Tensor x = at::ones({1 << 17});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  torch::manual_seed(5);
  const at::Tensor one = Dropout(x, 0.3, true);
  at::set_num_threads(2);
  torch::manual_seed(5);
  EXPECT_TRUE(at::equal(Dropout(x, 0.3, true), one));
  at::set_num_threads(threads);
}

TEST_F(NnTest, EmbeddingPaddingRowIsZeroAndFixed) {
  Embedding embedding(5, 3, 2);
  const at::Tensor ids = at::tensor({2, 4, 2, 1}, at::kLong);
  const at::Tensor out = embedding.Forward(ids);
  EXPECT_EQ(out[0].abs().sum().item<double>(), 0.0);
  EXPECT_GT(out[1].abs().sum().item<double>(), 0.0);
  out.sum().backward();
  EXPECT_EQ(embedding.weight.grad()[2].abs().sum().item<double>(), 0.0);
  EXPECT_EQ(embedding.weight.grad()[4].sum().item<double>(), 3.0);
}

TEST_F(NnTest, MlpGradients) {
  Mlp mlp(3, 5, 2, 0.0);
  std::vector<at::Tensor> inputs = Spread(mlp);
  inputs.push_back(Double({4, 3}));
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>& in) { return mlp.Forward(in.back()); },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(NnTest, NumericGradientCheckFindsAWrongGradient) {
  const absl::Status status = NumericGradientCheck(
      [](const std::vector<at::Tensor>& in) { return in[0] * in[0].detach(); },
      {Double({3})});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
}

// Attention written out from its definition.
at::Tensor Reference(const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& mask) {
  at::Tensor scores =
      at::matmul(q, k.transpose(-2, -1)) / std::sqrt(double(q.size(-1)));
  if (mask.defined())
    scores = scores.masked_fill(mask.logical_not(), -INFINITY);
  return at::matmul(at::softmax(scores, -1), v);
}

TEST_F(NnTest, AttendMatchesTheDefinitionOnBothPaths) {
  const at::Tensor q = at::randn({2, 3, 5, 8}), k = at::randn({2, 3, 7, 8}),
                   v = at::randn({2, 3, 7, 8});
  at::Tensor mask = at::ones({2, 1, 1, 7}, at::kBool);
  mask[1].narrow(-1, 4, 3).zero_();
  AttentionTap tap;
  for (bool enabled : {false, true}) {
    tap.enabled = enabled;
    EXPECT_LT(MaxDifference(Attend(q, k, v, {}, false, 0.0, &tap),
                            Reference(q, k, v, {})),
              1e-5);
    EXPECT_LT(MaxDifference(Attend(q, k, v, mask, false, 0.0, &tap),
                            Reference(q, k, v, mask)),
              1e-5);
    const at::Tensor k5 = k.narrow(2, 0, 5), v5 = v.narrow(2, 0, 5);
    const at::Tensor causal = at::ones({5, 5}, at::kBool).tril();
    EXPECT_LT(MaxDifference(Attend(q, k5, v5, {}, true, 0.0, &tap),
                            Reference(q, k5, v5, causal)),
              1e-5);
  }
}

TEST_F(NnTest, AttentionDropoutDropsProbabilities) {
  // Values of one make every output the sum of the kept probabilities.
  const at::Tensor q = at::randn({4, 2, 16, 8}), v = at::ones({4, 2, 16, 8});
  const at::Tensor out = Attend(q, q, v, {}, false, 0.5);
  EXPECT_NEAR(out.mean().item<double>(), 1.0, 0.1);
  EXPECT_GT(out.std().item<double>(), 0.05);
}

TEST_F(NnTest, AttendAddsABiasOnBothPaths) {
  const at::Tensor q = at::randn({2, 3, 5, 8}), k = at::randn({2, 3, 5, 8}),
                   v = at::randn({2, 3, 5, 8}), bias = at::randn({1, 3, 5, 5});
  at::Tensor mask = at::ones({2, 1, 1, 5}, at::kBool);
  mask[1].narrow(-1, 3, 2).zero_();
  const auto reference = [&](const at::Tensor& seen) {
    at::Tensor scores =
        at::matmul(q, k.transpose(-2, -1)) / std::sqrt(8.0) + bias;
    if (seen.defined())
      scores = scores.masked_fill(seen.logical_not(), -INFINITY);
    return at::matmul(at::softmax(scores, -1), v);
  };
  AttentionTap tap;
  for (bool enabled : {false, true}) {
    tap.enabled = enabled;
    EXPECT_LT(MaxDifference(Attend(q, k, v, {}, false, 0.0, &tap, bias),
                            reference({})),
              1e-5);
    EXPECT_LT(MaxDifference(Attend(q, k, v, mask, false, 0.0, &tap, bias),
                            reference(mask)),
              1e-5);
    EXPECT_LT(MaxDifference(Attend(q, k, v, {}, true, 0.0, &tap, bias),
                            reference(at::ones({5, 5}, at::kBool).tril())),
              1e-5);
  }
}

TEST_F(NnTest, RelativePositionBiasGradients) {
  RelativePositionBias bias({2, 3}, 2);
  TransformerOptions options;
  options.dim = 4;
  options.heads = 2;
  options.layer_scale = 0.5;
  TransformerBlock block(options);
  std::vector<at::Tensor> inputs = Spread(block);
  for (const at::Tensor& p : Spread(bias)) inputs.push_back(p);
  inputs.push_back(Double({2, 7, 4}));
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>& in) {
        return block.Forward(in.back(), {}, {}, bias.Forward({2, 3}));
      },
      inputs, 1e-6, 2e-5);
  EXPECT_TRUE(status.ok()) << status;
}

// Entry by entry from the definition.
TEST_F(NnTest, RelativePositionBiasDependsOnOffsetsAlone) {
  constexpr int64_t kHeight = 2, kWidth = 3, kRows = 3 * 5;
  RelativePositionBias bias({kHeight, kWidth}, 2);
  const at::Tensor& table = bias.relative_position_bias_table;
  ASSERT_EQ(table.sizes().vec(), (std::vector<int64_t>{kRows + 3, 2}));
  const at::Tensor out = bias.Forward({kHeight, kWidth});
  ASSERT_EQ(out.sizes().vec(), (std::vector<int64_t>{1, 2, 7, 7}));
  for (int64_t q = 0; q < 7; ++q) {
    for (int64_t k = 0; k < 7; ++k) {
      int64_t row = 0;
      if (q == 0 || k == 0) {
        row = kRows + (q == 0 && k == 0 ? 2 : q == 0 ? 0 : 1);
      } else {
        const int64_t dy = (q - 1) / kWidth - (k - 1) / kWidth;
        const int64_t dx = (q - 1) % kWidth - (k - 1) % kWidth;
        row = (dy + kHeight - 1) * (2 * kWidth - 1) + dx + kWidth - 1;
      }
      EXPECT_TRUE(at::equal(out[0].select(1, q).select(1, k), table[row]))
          << q << " " << k;
    }
  }
  const at::Tensor larger = bias.Forward({4, 6});
  EXPECT_EQ(larger.sizes().vec(), (std::vector<int64_t>{1, 2, 25, 25}));
  // The middle offset, (0, 0), stays in the middle.
  EXPECT_TRUE(
      at::allclose(larger[0].select(1, 5).select(1, 5), table[7], 1e-4, 1e-5));
  EXPECT_TRUE(at::equal(larger[0].select(1, 0).select(1, 0), table[kRows + 2]));
}

TEST_F(NnTest, LayerScaleScalesEverySublayer) {
  TransformerOptions options;
  options.dim = 8;
  options.heads = 2;
  options.cross_dim = 8;
  options.layer_scale = 0.25;
  TransformerBlock block(options);
  auto parameters = block.named_parameters();
  const at::Tensor x = at::randn({2, 3, 8});
  const CrossMemory memory{at::randn({2, 5, 8}), {}, {}};
  for (const char* name : {"ls1.gamma", "ls_cross.gamma", "ls2.gamma"}) {
    EXPECT_EQ(parameters[name].min().item<float>(), 0.25f);
    EXPECT_EQ(parameters[name].max().item<float>(), 0.25f);
  }
  at::NoGradGuard no_grad;
  const at::Tensor full = block.Forward(x, {}, {memory});
  parameters["ls_cross.gamma"].zero_();
  EXPECT_LT(MaxDifference(block.Forward(x, {}, {memory}), block.Forward(x)),
            1e-6);
  EXPECT_GT(MaxDifference(block.Forward(x), full), 1e-4);
  parameters["ls1.gamma"].zero_();
  parameters["ls2.gamma"].zero_();
  EXPECT_TRUE(at::equal(block.Forward(x, {}, {memory}), x));
}

TEST_F(NnTest, SelfAttentionGradients) {
  for (bool causal : {false, true}) {
    for (bool masked : {false, true}) {
      SelfAttention attention(4, 2);
      std::vector<at::Tensor> inputs = Spread(attention);
      inputs.push_back(Double({2, 3, 4}));
      at::Tensor mask;
      if (masked) {
        mask = at::ones({2, 3}, at::kBool);
        mask[1][2] = false;
      }
      const absl::Status status = NumericGradientCheck(
          [&](const std::vector<at::Tensor>& in) {
            return attention.Forward(in.back(), mask, causal);
          },
          inputs);
      EXPECT_TRUE(status.ok())
          << status << " causal " << causal << " masked " << masked;
    }
  }
}

TEST_F(NnTest, CausalAttentionIgnoresTheFuture) {
  SelfAttention attention(8, 2);
  Spread(attention);
  const at::Tensor x = Double({2, 5, 8}, false);
  at::Tensor changed = x.clone();
  changed.narrow(1, 3, 2).normal_();
  at::Tensor mask = at::ones({2, 5}, at::kBool);
  mask[1][4] = false;
  for (const at::Tensor& m : {at::Tensor(), mask}) {
    EXPECT_LT(
        MaxDifference(attention.Forward(x, m, true).narrow(1, 0, 3),
                      attention.Forward(changed, m, true).narrow(1, 0, 3)),
        1e-12);
  }
  EXPECT_GT(MaxDifference(attention.Forward(x).narrow(1, 0, 3),
                          attention.Forward(changed).narrow(1, 0, 3)),
            1e-3);
}

TEST_F(NnTest, CrossAttentionWithIndexEqualsGatheredMemories) {
  CrossAttention attention(8, 2, 6);
  Spread(attention);
  const at::Tensor x = Double({4, 3, 8}), memory = Double({2, 5, 6});
  at::Tensor mask = at::ones({2, 5}, at::kBool);
  mask[0].narrow(0, 3, 2).zero_();
  const at::Tensor index = at::tensor({1, 0, 1, 1}, at::kLong);
  const at::Tensor once = attention.Forward(x, {memory, mask, index});
  const at::Tensor gathered = attention.Forward(
      x, {memory.index_select(0, index), mask.index_select(0, index), {}});
  EXPECT_LT(MaxDifference(once, gathered), 1e-12);
  const std::vector<at::Tensor> leaves = {x, memory};
  const auto a = torch::autograd::grad({once.pow(2).sum()}, leaves);
  const auto b = torch::autograd::grad({gathered.pow(2).sum()}, leaves);
  EXPECT_LT(MaxDifference(a[0], b[0]), 1e-10);
  EXPECT_LT(MaxDifference(a[1], b[1]), 1e-10);
}

TEST_F(NnTest, NeighboursShareAMemory) {
  CrossAttention attention(8, 2, 6);
  Spread(attention);
  attention.eval();
  const at::Tensor x = Double({6, 3, 8}), memory = Double({2, 5, 6});
  at::Tensor mask = at::ones({2, 5}, at::kBool);
  mask[0].narrow(0, 3, 2).zero_();
  const at::Tensor index = at::tensor({0, 0, 0, 1, 1, 1}, at::kLong);
  const at::Tensor indexed = attention.Forward(x, {memory, mask, index});
  const at::Tensor shared = attention.Forward(x, {memory, mask, {}});
  EXPECT_LT(MaxDifference(shared, indexed), 1e-12);
  const std::vector<at::Tensor> leaves = {x, memory};
  const auto a = torch::autograd::grad({shared.pow(2).sum()}, leaves);
  const auto b = torch::autograd::grad({indexed.pow(2).sum()}, leaves);
  EXPECT_LT(MaxDifference(a[0], b[0]), 1e-10);
  EXPECT_LT(MaxDifference(a[1], b[1]), 1e-10);
  // Its map is still one of each query sequence's own.
  attention.tap().enabled = true;
  EXPECT_LT(MaxDifference(attention.Forward(x, {memory, mask, {}}), shared),
            1e-12);
  ASSERT_EQ(attention.tap().maps.size(), 1u);
  EXPECT_EQ(attention.tap().maps[0].sizes().vec(),
            (std::vector<int64_t>{6, 2, 3, 5}));
  EXPECT_THROW(attention.Forward(x.narrow(0, 0, 5), {memory, mask, {}}),
               c10::Error);
}

TEST_F(NnTest, TapCapturesMapsWithGradients) {
  CrossAttention attention(8, 2, 6);
  Spread(attention);
  attention.eval();
  const at::Tensor x = Double({2, 3, 8}), memory = Double({2, 5, 6});
  const at::Tensor plain = attention.Forward(x, {memory, {}, {}});
  EXPECT_TRUE(attention.tap().maps.empty());
  attention.tap().enabled = true;
  const at::Tensor tapped = attention.Forward(x, {memory, {}, {}});
  EXPECT_LT(MaxDifference(plain, tapped), 1e-12);
  ASSERT_EQ(attention.tap().maps.size(), 1u);
  const at::Tensor map = attention.tap().maps[0];
  ASSERT_EQ(map.sizes().vec(), (std::vector<int64_t>{2, 2, 3, 5}));
  EXPECT_LT(MaxDifference(map.sum(-1), at::ones({2, 2, 3}, at::kDouble)),
            1e-12);
  const at::Tensor gradient = torch::autograd::grad({tapped.sum()}, {map})[0];
  EXPECT_GT(gradient.abs().max().item<double>(), 0.0);
  // A map a call; none of a frozen layer is cut off from the result.
  for (at::Tensor& p : attention.parameters()) p.requires_grad_(false);
  const at::Tensor frozen =
      attention.Forward(x.detach(), {memory.detach(), {}, {}});
  ASSERT_EQ(attention.tap().maps.size(), 2u);
  EXPECT_LT(MaxDifference(torch::autograd::grad({frozen.sum()},
                                                {attention.tap().maps[1]})[0],
                          gradient),
            1e-12);
  c10::NoGradGuard no_grad;
  attention.Forward(x.detach(), {memory.detach(), {}, {}});
  EXPECT_FALSE(attention.tap().maps[2].requires_grad());
}

TEST_F(NnTest, BlockGradientsInEveryVariant) {
  for (bool pre_norm : {true, false}) {
    for (int64_t cross_dim : {0, 3}) {
      TransformerOptions options;
      options.dim = 4;
      options.heads = 2;
      options.hidden = 5;
      options.cross_dim = cross_dim;
      options.pre_norm = pre_norm;
      TransformerBlock block(options);
      std::vector<at::Tensor> inputs = Spread(block);
      inputs.push_back(Double({2, 2, 4}));
      inputs.push_back(Double({1, 3, 3}));
      std::vector<CrossMemory> memories;
      if (cross_dim > 0) {
        const at::Tensor index = at::zeros({2}, at::kLong);
        memories.push_back({inputs.back(), {}, index});
        memories.push_back({inputs.back() * 0.5, {}, index});
      }
      const absl::Status status = NumericGradientCheck(
          [&](const std::vector<at::Tensor>& in) {
            if (cross_dim > 0) memories[1].values = in.back() * 0.5;
            return block.Forward(in[in.size() - 2], {}, memories);
          },
          inputs, 1e-6, 2e-5);
      EXPECT_TRUE(status.ok())
          << status << " pre_norm " << pre_norm << " cross " << cross_dim;
      if (cross_dim == 0) {
        EXPECT_THROW(block.Forward(inputs[inputs.size() - 2], {},
                                   {{inputs.back(), {}, {}}}),
                     c10::Error);
      }
    }
  }
}

TEST_F(NnTest, DropPathSkipsWholeSamples) {
  TransformerOptions options;
  options.dim = 8;
  options.heads = 2;
  options.drop_path = 0.5;
  BlockStack stack(options, 2);  // Block 0 never drops, block 1 by 0.5.
  const at::Tensor x = at::randn({64, 3, 8});
  stack.eval();
  const at::Tensor full = stack.Forward(x);
  EXPECT_TRUE(at::equal(full, stack.Forward(x)));
  stack.train();
  const at::Tensor first = stack.block(0).Forward(x);
  const at::Tensor second = stack.block(1).Forward(first);
  const at::Tensor skipped =
      (second == first).flatten(1).all(1).to(at::kFloat).mean();
  // Both sublayers are skipped by a quarter of the samples.
  EXPECT_NEAR(skipped.item<double>(), 0.25, 0.15);
}

TEST_F(NnTest, DecoderIsCausalAndReadsItsMemory) {
  TransformerOptions options;
  options.dim = 8;
  options.heads = 2;
  options.cross_dim = 8;
  options.causal = true;
  TransformerDecoder decoder(options, 2);
  Spread(decoder);
  const at::Tensor x = Double({2, 4, 8}, false);
  const CrossMemory memory{Double({2, 3, 8}, false), {}, {}};
  const at::Tensor out = decoder.Forward(x, {}, {memory});
  at::Tensor changed = x.clone();
  changed.narrow(1, 2, 2).normal_();
  EXPECT_LT(
      MaxDifference(out.narrow(1, 0, 2),
                    decoder.Forward(changed, {}, {memory}).narrow(1, 0, 2)),
      1e-12);
  EXPECT_GT(
      MaxDifference(out, decoder.Forward(x, {}, {{memory.values * 2, {}, {}}})),
      1e-3);
  options.pre_norm = false;
  EXPECT_THROW(TransformerDecoder(options, 1), c10::Error);
}

TEST_F(NnTest, ParameterNamesAreStable) {
  TransformerOptions options;
  options.dim = 4;
  options.heads = 1;
  options.cross_dim = 4;
  TransformerDecoder decoder(options, 1);
  std::vector<std::string> names;
  for (const auto& p : decoder.named_parameters()) names.push_back(p.key());
  EXPECT_EQ(names.size(), 22u);
  for (const char* name :
       {"blocks.0.norm1.weight", "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.bias", "blocks.0.cross_attn.kv.weight",
        "blocks.0.mlp.fc1.weight", "blocks.0.norm2.bias", "norm.weight"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

TEST_F(NnTest, SeedDeterminesParameters) {
  TransformerOptions options;
  options.dim = 8;
  options.heads = 2;
  torch::manual_seed(3);
  BlockStack a(options, 2);
  torch::manual_seed(3);
  BlockStack b(options, 2);
  const auto pa = a.parameters(), pb = b.parameters();
  for (size_t i = 0; i < pa.size(); ++i) EXPECT_TRUE(at::equal(pa[i], pb[i]));
}

TEST_F(NnTest, PositionsResizeBicubically) {
  PositionEmbedding positions({3, 5}, 2, 1);
  EXPECT_TRUE(positions.Forward({3, 5}).is_same(positions.weight));
  {
    at::NoGradGuard no_grad;
    // Rows differ by 10, columns by their square.
    const at::Tensor y = at::arange(3, at::kFloat).view({3, 1});
    const at::Tensor x = at::arange(5, at::kFloat).view({1, 5}).square();
    const at::Tensor plane = (y * 10 + x).view({1, 15, 1}).expand({1, 15, 2});
    positions.weight.narrow(1, 1, 15).copy_(plane);
  }
  const at::Tensor out = positions.Forward({6, 10});
  ASSERT_EQ(out.sizes().vec(), (std::vector<int64_t>{1, 61, 2}));
  EXPECT_TRUE(at::equal(out.narrow(1, 0, 1), positions.weight.narrow(1, 0, 1)));
  // Cubic convolution [Keys 1981] with a = -0.75, as in PyTorch and ALBEF.
  auto weight = [](double d) {
    const double a = -0.75;
    return d <= 1 ? (a + 2) * d * d * d - (a + 3) * d * d + 1
                  : a * (d * d * d - 5 * d * d + 8 * d - 4);
  };
  auto value = [&](double at) {
    double sum = 0;
    for (int i = int(at) - 1; i <= int(at) + 2; ++i)
      sum += weight(std::abs(at - i)) * i * i;
    return sum;
  };
  // Output x = 4 reads input (4 + 0.5) / 2 - 0.5 = 1.75, x = 5 reads 2.25. The
  // rows' part is the same in both.
  const at::Tensor row = out.narrow(1, 1, 60).view({6, 10, 2}).select(2, 0)[2];
  EXPECT_NEAR((row[5] - row[4]).item<double>(), value(2.25) - value(1.75),
              1e-4);
  out.sum().backward();
  EXPECT_EQ(positions.weight.grad().sizes(), positions.weight.sizes());
  EXPECT_THROW(ResizePositions(positions.weight, {4, 4}, {2, 2}, 1),
               c10::Error);
}

}  // namespace
}  // namespace semvq
