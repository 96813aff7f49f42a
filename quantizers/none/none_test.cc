#include "quantizers/none/none.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::shared_ptr<Quantizer> Make() {
  Contract host;
  host.provides = {{kQuantized, 3}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.book = &book;
  auto made = MakeNone(NoneConfig(), context);
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

TEST(NoneTest, FeaturesPassAsTheyAre) {
  auto q = Make();
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.valid = at::ones({2, 4}, at::kBool);
  context.valid[1][2] = false;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    at::Tensor z = at::randn({2, 4, 3}).to(type);
    z[1][2].fill_(std::nan(""));
    z.requires_grad_();
    const Quantized out = q->Quantize(z, context);
    EXPECT_EQ(out.vectors.scalar_type(), type);
    EXPECT_TRUE(at::equal(out.vectors[0], z[0]));
    EXPECT_EQ(out.vectors[1][2].abs().sum().item<double>(), 0);
    EXPECT_FALSE(out.codes.defined());
    EXPECT_TRUE(out.losses.empty());
    out.vectors.sum().backward();
    EXPECT_TRUE(at::equal(
        z.grad(), context.valid.unsqueeze(2).expand({2, 4, 3}).to(type)));
  }
}

TEST(NoneTest, HasNoCodes) {
  auto q = Make();
  EXPECT_FALSE(q->info().has_codes);
  EXPECT_TRUE(NoneContract("x", NoneConfig(), ContractBook())
                  .codes.codes_per_group.empty());
  try {
    q->Lookup(at::zeros({1, 1}, at::kLong));
    FAIL() << "codes were looked up that do not exist";
  } catch (const c10::Error& e) {
    EXPECT_NE(std::string(e.what()).find("codebook has no codes"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace semvq
