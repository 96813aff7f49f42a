#include <gtest/gtest.h>
#include <torch/types.h>

#include "core/forward/testing.h"
#include "core/plugin/objective.h"
#include "core/plugin/registry.h"
#include "mean_color/mean_color.pb.h"

namespace mine {
namespace {

TEST(MeanColor, ProvidesAViewOfItsOwnAndLearnsIt) {
  semvq::ContractBook book;
  semvq::Contract image;
  image.provides = {{semvq::kTokens, 4}};
  book.Add("image", image);
  semvq::PluginContext context;
  context.instance = "color";
  context.book = &book;
  auto made = semvq::Registry::Global().Make<semvq::Objective>(
      MeanColorConfig(), context);
  ASSERT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);

  semvq::TestForward forward(semvq::TestBatch());
  forward.student["color"] = made->get();
  semvq::Tokens tokens;
  tokens.values = at::randn({3, 5, 4}, at::kDouble).requires_grad_();
  forward->Set(semvq::ImageKey("image", semvq::kTokens), tokens);

  const at::Tensor& view =
      forward->Get<at::Tensor>(semvq::ImageKey("color", "mean_color"));
  EXPECT_EQ(view.sizes().vec(), (std::vector<int64_t>{3, 3}));
  const semvq::ObjectiveOutput out = (*made)->Compute(*forward);
  // The view that stood there is read, not computed again.
  EXPECT_EQ(forward->computed().size(), 1u);
  semvq::SumOf(out.losses).backward();
  EXPECT_GT(tokens.values.grad().abs().sum().item<double>(), 0);
  for (const at::Tensor& p : (*made)->parameters()) {
    EXPECT_GT(p.grad().abs().sum().item<double>(), 0);
  }
}

}  // namespace
}  // namespace mine
