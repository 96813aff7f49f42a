#include "kernels/short_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace semvq {
namespace {

struct Case {
  int64_t sequences, queries, keys, heads, dim;
  bool masked;
};

class ShortAttentionTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!HasShortAttention(16, 16)) {
      GTEST_SKIP() << "this processor has no AVX512_BF16";
    }
    at::manual_seed(7);
  }
};

// Rounded to bfloat16, as doubles that want a gradient.
at::Tensor Rounded(at::IntArrayRef shape) {
  return at::randn(shape).to(at::kBFloat16).to(at::kDouble).requires_grad_();
}

at::Tensor RandomMask(int64_t sequences, int64_t keys) {
  at::Tensor mask = at::rand({sequences, keys}) > 0.4;
  mask.select(1, keys / 2).fill_(true);
  return mask;
}

// Step by step in float64: [B, N, H, d] each, to [B, Q, H * d].
at::Tensor Reference(const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& mask) {
  at::Tensor scores =
      at::einsum("bqhd,bkhd->bhqk", {q, k}) / std::sqrt(q.size(3));
  if (mask.defined()) {
    scores = scores.masked_fill(mask.logical_not().unsqueeze(1).unsqueeze(1),
                                -std::numeric_limits<double>::infinity());
  }
  return at::einsum("bhqk,bkhd->bqhd", {scores.softmax(-1), v}).flatten(2);
}

void ExpectNear(const at::Tensor& got, const at::Tensor& want, double share) {
  ASSERT_EQ(got.sizes(), want.sizes());
  const double most = (got.to(at::kDouble) - want).abs().max().item<double>();
  EXPECT_LE(most, share * want.abs().max().item<double>());
}

using ShortSelfAttentionTest = ShortAttentionTest;

TEST_P(ShortSelfAttentionTest, MatchesFloat64) {
  const Case c = GetParam();
  const at::Tensor exact = Rounded({c.sequences, c.keys, 3, c.heads, c.dim});
  const at::Tensor mask =
      c.masked ? RandomMask(c.sequences, c.keys) : at::Tensor();
  const at::Tensor want = Reference(exact.select(2, 0), exact.select(2, 1),
                                    exact.select(2, 2), mask);
  const at::Tensor qkv = exact.detach().to(at::kBFloat16).requires_grad_();
  const at::Tensor got = ShortSelfAttention(qkv, mask);
  EXPECT_EQ(got.scalar_type(), at::kBFloat16);
  ExpectNear(got, want, 0.006);
  const at::Tensor grad = Rounded(want.sizes()).detach();
  const at::Tensor want_grad =
      torch::autograd::grad({want}, {exact}, {grad})[0];
  const at::Tensor got_grad =
      torch::autograd::grad({got}, {qkv}, {grad.to(at::kBFloat16)})[0];
  for (int64_t role = 0; role < 3; ++role) {
    ExpectNear(got_grad.select(2, role), want_grad.select(2, role), 0.012);
  }
}

TEST_P(ShortAttentionTest, CrossMatchesFloat64) {
  const Case c = GetParam();
  const at::Tensor exact_q = Rounded({c.sequences, c.queries, c.heads, c.dim});
  const at::Tensor exact_kv = Rounded({c.sequences, c.keys, 2, c.heads, c.dim});
  const at::Tensor mask =
      c.masked ? RandomMask(c.sequences, c.keys) : at::Tensor();
  const at::Tensor want =
      Reference(exact_q, exact_kv.select(2, 0), exact_kv.select(2, 1), mask);
  const at::Tensor q = exact_q.detach().to(at::kBFloat16).requires_grad_();
  const at::Tensor kv = exact_kv.detach().to(at::kBFloat16).requires_grad_();
  const at::Tensor got = ShortCrossAttention(q, kv, mask);
  ExpectNear(got, want, 0.006);
  const at::Tensor grad = Rounded(want.sizes()).detach();
  const auto want_grads =
      torch::autograd::grad({want}, {exact_q, exact_kv}, {grad});
  const auto got_grads =
      torch::autograd::grad({got}, {q, kv}, {grad.to(at::kBFloat16)});
  ExpectNear(got_grads[0], want_grads[0], 0.012);
  ExpectNear(got_grads[1], want_grads[1], 0.012);
}

TEST_P(ShortAttentionTest, ThreadsDoNotChangeABit) {
  const Case c = GetParam();
  const at::Tensor kv = at::randn({c.sequences, c.keys, 2, c.heads, c.dim})
                            .to(at::kBFloat16)
                            .requires_grad_();
  const at::Tensor q = at::randn({c.sequences, c.queries, c.heads, c.dim})
                           .to(at::kBFloat16)
                           .requires_grad_();
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> outs, grads;
  for (int n : {1, 2}) {
    at::set_num_threads(n);
    outs.push_back(ShortCrossAttention(q, kv, {}));
    grads.push_back(torch::autograd::grad(
        {outs.back().to(at::kFloat).square().sum()}, {kv})[0]);
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(outs[0], outs[1]));
  EXPECT_TRUE(at::equal(grads[0], grads[1]));
}

INSTANTIATE_TEST_SUITE_P(Shapes, ShortSelfAttentionTest,
                         testing::Values(Case{2, 65, 65, 4, 32, false},
                                         Case{3, 14, 14, 4, 32, true},
                                         Case{1, 1, 1, 1, 16, false},
                                         Case{2, 128, 128, 1, 128, true},
                                         Case{1, 97, 97, 3, 48, true}));
INSTANTIATE_TEST_SUITE_P(
    Shapes, ShortAttentionTest,
    testing::Values(Case{2, 65, 65, 4, 32, false},  // quickstart's image
                    Case{3, 14, 14, 4, 32, true},   // and text.
                    Case{2, 84, 65, 4, 32, false},  // Six texts an image.
                    Case{1, 1, 1, 1, 16, false},    //
                    Case{2, 7, 17, 2, 64, true},    //
                    Case{2, 128, 128, 1, 128, true},
                    Case{1, 300, 33, 2, 48,
                         true},  // Several blocks of queries.
                    Case{2, 2, 97, 3, 16, true}));

TEST(ShortAttentionErrorTest, SaysWhatItCannotDo) {
  EXPECT_FALSE(HasShortAttention(kMostShortKeys + 1, 32));
  EXPECT_FALSE(HasShortAttention(16, 24));
  EXPECT_FALSE(HasShortAttention(16, 144));
  EXPECT_FALSE(HasShortAttention(0, 16));
  EXPECT_THROW(ShortSelfAttention(at::ones({1, 2, 3, 1, 16}), {}), c10::Error);
  EXPECT_THROW(
      ShortSelfAttention(at::ones({1, 2, 2, 1, 16}, at::kBFloat16), {}),
      c10::Error);
  EXPECT_THROW(
      ShortSelfAttention(at::ones({1, 129, 3, 1, 16}, at::kBFloat16), {}),
      c10::Error);
  EXPECT_THROW(
      ShortCrossAttention(at::ones({1, 2, 1, 16}, at::kBFloat16),
                          at::ones({2, 2, 2, 1, 16}, at::kBFloat16), {}),
      c10::Error);
  if (!HasShortAttention(2, 16)) return;
  EXPECT_THROW(ShortSelfAttention(at::ones({1, 2, 3, 1, 16}, at::kBFloat16),
                                  at::ones({1, 3}, at::kBool)),
               c10::Error);
  // A sequence without a key to see.
  const at::Tensor blind = ShortSelfAttention(
      at::ones({1, 2, 3, 1, 16}, at::kBFloat16), at::zeros({1, 2}, at::kBool));
  EXPECT_TRUE(blind.isnan().all().item<bool>());
  // Twice differentiable it is not, and says so.
  const at::Tensor qkv =
      at::ones({1, 2, 3, 1, 16}, at::kBFloat16).requires_grad_();
  EXPECT_THROW(torch::autograd::grad({ShortSelfAttention(qkv, {}).sum()}, {qkv},
                                     {}, true, /*create_graph=*/true),
               c10::Error);
}

// Scores far apart, as trained models have them.
TEST(ShortAttentionErrorTest, LargeScoresStayFinite) {
  if (!HasShortAttention(2, 16)) GTEST_SKIP() << "no AVX512_BF16";
  at::manual_seed(3);
  const at::Tensor qkv =
      (at::randn({2, 20, 3, 2, 16}) * 60).to(at::kBFloat16).requires_grad_();
  const at::Tensor out = ShortSelfAttention(qkv, {});
  EXPECT_TRUE(out.isfinite().all().item<bool>());
  EXPECT_TRUE(torch::autograd::grad({out.sum()}, {qkv})[0]
                  .isfinite()
                  .all()
                  .item<bool>());
}

}  // namespace
}  // namespace semvq
