#include <gtest/gtest.h>
#include <torch/types.h>

#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "core/plugin/registry.h"
#include "sign_codes/sign_codes.pb.h"

namespace mine {
namespace {

// Made as the trainer makes it: by its config's type.
std::shared_ptr<semvq::Quantizer> MakeOfDim(int64_t dim) {
  semvq::ContractBook book;
  semvq::Contract contract;
  contract.provides = {{semvq::kQuantized, dim}};
  book.Add("codebook", contract);
  semvq::PluginContext context;
  context.instance = "codebook";
  context.book = &book;
  SignCodesConfig config;
  config.set_scale(0.5);
  auto made = semvq::Registry::Global().Make<semvq::Quantizer>(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

TEST(SignCodes, IsInTheRegistryWithItsDescription) {
  const semvq::PluginType* type =
      semvq::Registry::Global().Find("mine.SignCodesConfig");
  ASSERT_NE(type, nullptr);
  EXPECT_EQ(type->kind, semvq::PluginKind::kQuantizer);
  EXPECT_FALSE(type->doc().empty());
  SignCodesConfig bad;
  bad.set_scale(0);
  EXPECT_EQ(type->validate(bad).message().substr(0, 6), "scale:");
}

TEST(SignCodes, CodesAreSignsAndTheGradientPasses) {
  const auto quantizer = MakeOfDim(3);
  ASSERT_NE(quantizer, nullptr);
  EXPECT_EQ(quantizer->info().codes_per_group, (std::vector<int64_t>{2, 2, 2}));
  at::Tensor features =
      torch::tensor({{{0.1, -2.0, 0.0}}}, at::kFloat).requires_grad_();
  const semvq::Quantized out = quantizer->Quantize(features, {});
  EXPECT_TRUE(at::equal(out.codes, torch::tensor({{{1, 0, 1}}}, at::kLong)));
  EXPECT_TRUE(at::equal(out.vectors.detach(),
                        torch::tensor({{{0.5, -0.5, 0.5}}}, at::kFloat)));
  EXPECT_TRUE(at::equal(quantizer->Lookup(out.codes), out.vectors.detach()));
  out.vectors.sum().backward();
  EXPECT_TRUE(at::equal(features.grad(), at::ones({1, 1, 3})));
}

}  // namespace
}  // namespace mine
