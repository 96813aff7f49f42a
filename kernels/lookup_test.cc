#include "kernels/lookup.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/reference.h"

namespace semvq {
namespace {

TEST(LookupTest, GivesTheCodesRows) {
  at::manual_seed(1);
  for (at::ScalarType type :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    const at::Tensor e = at::randn({11, 5}).to(type);
    const at::Tensor codes = at::randint(-1, 11, {4, 7, 2}, at::kLong);
    const at::Tensor got = LookupCodes(e, codes);
    EXPECT_EQ(got.sizes(), at::IntArrayRef({4, 7, 2, 5}));
    EXPECT_EQ(got.scalar_type(), type);
    EXPECT_TRUE(at::equal(got, LookupReference(e, codes)));
  }
  EXPECT_EQ(LookupCodes(at::ones({3, 2}), at::zeros({0}, at::kLong)).sizes(),
            at::IntArrayRef({0, 2}));
}

TEST(LookupTest, GradientMatchesDifferences) {
  at::manual_seed(2);
  at::Tensor e = at::randn({6, 3}, at::kDouble);
  const at::Tensor codes = at::tensor({0, 2, 2, -1, 5, 0, 2}, at::kLong);
  const at::Tensor weights = at::randn({7, 3}, at::kDouble);
  const auto loss = [&](const at::Tensor& book) {
    return (LookupCodes(book, codes).pow(3) * weights).sum();
  };
  e.requires_grad_();
  const at::Tensor gradient = torch::autograd::grad(
      {loss(e)}, {e}, {}, /*retain_graph=*/true, /*create_graph=*/true)[0];
  const at::Tensor direction = at::randn({6, 3}, at::kDouble);
  const at::Tensor second =
      torch::autograd::grad({(gradient * direction).sum()}, {e})[0];
  const double h = 1e-5;
  for (int64_t i = 0; i < 18; ++i) {
    at::Tensor up = e.detach().clone(), down = e.detach().clone();
    up.view({-1})[i] += h;
    down.view({-1})[i] -= h;
    const double numeric = ((loss(up) - loss(down)) / (2 * h)).item<double>();
    EXPECT_NEAR(gradient.reshape({-1})[i].item<double>(), numeric, 1e-8);
    const auto slope = [&](at::Tensor book) {
      book.requires_grad_();
      return (torch::autograd::grad({loss(book)}, {book})[0] * direction)
          .sum()
          .item<double>();
    };
    EXPECT_NEAR(second.reshape({-1})[i].item<double>(),
                (slope(up) - slope(down)) / (2 * h), 1e-7);
  }
  // A code that nothing looks up, and one that only padding could mean.
  EXPECT_EQ(gradient[1].abs().max().item<double>(), 0);
}

TEST(LookupTest, GradientsAddUpWideAndInOrder) {
  at::manual_seed(3);
  at::Tensor e = at::randn({50, 9});
  const at::Tensor codes = at::randint(-1, 50, {4000}, at::kLong);
  const at::Tensor weights = at::randn({4000, 9});
  e.requires_grad_();
  const at::Tensor gradient =
      torch::autograd::grad({(LookupCodes(e, codes) * weights).sum()}, {e})[0];
  EXPECT_TRUE(
      at::equal(gradient, CodeStatisticsReference(weights, codes, 50).sums));
}

TEST(LookupTest, BadInputIsRefused) {
  const at::Tensor e = at::zeros({3, 2});
  EXPECT_THROW(LookupCodes(e, at::full({1}, 3, at::kLong)), c10::Error);
  EXPECT_THROW(LookupCodes(e, at::zeros({1})), c10::Error);
  EXPECT_THROW(LookupCodes(e[0], at::zeros({1}, at::kLong)), c10::Error);
}

}  // namespace
}  // namespace semvq
