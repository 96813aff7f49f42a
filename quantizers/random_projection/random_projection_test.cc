#include "quantizers/random_projection/random_projection.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <string>
#include <vector>

#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::shared_ptr<Quantizer> Make(int64_t dim, uint64_t seed = 3) {
  RandomProjectionConfig config;
  config.set_num_codes(50);
  config.set_code_dim(4);
  Contract host;
  host.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.seed = seed;
  context.book = &book;
  auto made = MakeRandomProjection(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

TEST(RandomProjectionTest, CodesAreNearestByCosine) {
  at::manual_seed(1);
  auto q = Make(12);
  const auto buffers = q->named_buffers();
  at::Tensor z = at::randn({3, 20, 12}).requires_grad_();
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  const Quantized out = q->Quantize(z, context);
  const at::Tensor projected =
      at::matmul(z.detach(), buffers["projection"]).to(at::kDouble);
  const at::Tensor cosine = at::matmul(projected / projected.norm(2, -1, true),
                                       buffers["codebook"].to(at::kDouble).t());
  EXPECT_TRUE(at::equal(out.codes.select(2, 0), cosine.argmax(-1)));
  EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
  EXPECT_FALSE(out.vectors.requires_grad());
  EXPECT_FALSE(q->info().passes_gradient);
  EXPECT_TRUE(out.losses.empty());
  EXPECT_EQ(out.metrics.size(), 9u);
  EXPECT_TRUE(q->parameters().empty());
}

TEST(RandomProjectionTest, SeedDecidesAndAutocastDoesNot) {
  at::manual_seed(2);
  const at::Tensor z = at::randn({2, 40, 12});
  const at::Tensor codes = Make(12)->Quantize(z, {}).codes;
  EXPECT_TRUE(at::equal(Make(12)->Quantize(z, {}).codes, codes));
  EXPECT_FALSE(at::equal(Make(12, 4)->Quantize(z, {}).codes, codes));
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor autocast = Make(12)->Quantize(z, {}).codes;
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_TRUE(at::equal(autocast, codes));
}

TEST(RandomProjectionTest, InvalidPositionsGetNoCode) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.valid = at::zeros({1, 3}, at::kBool);
  context.valid[0][1] = true;
  const Quantized out = Make(5)->Quantize(at::ones({1, 3, 5}), context);
  EXPECT_EQ(out.codes[0][0].item<int64_t>(), -1);
  EXPECT_GE(out.codes[0][1].item<int64_t>(), 0);
  EXPECT_EQ(out.vectors[0][2].abs().sum().item<float>(), 0);
  EXPECT_EQ(out.metrics[0].second.item<float>(), 1);  // One code, perplexity 1.
}

TEST(RandomProjectionTest, BadInputIsRefused) {
  auto q = Make(5);
  EXPECT_THROW(q->Quantize(at::ones({1, 3, 4}), {}), c10::Error);
  EXPECT_THROW(q->Lookup(at::full({1, 1}, 50, at::kLong)), c10::Error);
  RandomProjectionConfig bad;
  bad.set_num_codes(0);
  bad.set_code_dim(-2);
  const std::string message(ValidateRandomProjection(bad).message());
  EXPECT_NE(message.find("num_codes: got 0"), std::string::npos);
  EXPECT_NE(message.find("\ncode_dim: got -2"), std::string::npos);
  EXPECT_EQ(MakeRandomProjection({}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semvq
