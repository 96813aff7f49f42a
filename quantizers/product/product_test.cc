#include "quantizers/product/product.h"

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"
#include "quantizers/make_quantizer.h"

namespace semvq {
namespace {

constexpr char kVq[] =
    "quantizer { [type.googleapis.com/semvq.VqConfig] { num_codes: 6 codebook "
    "{ init: RANDOM revive_after: 0 reservoir: 8 } } }";

std::string Text(const std::string& fields) {
  return absl::StrCat("[type.googleapis.com/semvq.ProductConfig] { ", fields,
                      " }");
}

std::shared_ptr<Quantizer> Make(const std::string& fields, int64_t dim) {
  auto made = MakeQuantizer(Text(fields), dim, 7);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  return *made;
}

QuantizeContext Train(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.seed = 3;
  context.step = step;
  return context;
}

at::Tensor Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "nothing is named " << name;
  return at::zeros({});
}

at::Tensor Codebook(Quantizer& quantizer, int64_t group) {
  return quantizer
      .named_parameters()[absl::StrCat("groups.", group, ".codebook")];
}

TEST(ProductTest, EachPartHasItsOwnNearestCode) {
  at::manual_seed(1);
  auto q = Make(absl::StrCat("groups: 3 ", kVq), 6);
  const at::Tensor z = at::randn({2, 5, 6}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  double commitment = 0, error = 0;
  for (int64_t g = 0; g < 3; ++g) {
    const at::Tensor book = Codebook(*q, g).detach();
    EXPECT_EQ(book.sizes().vec(), (std::vector<int64_t>{6, 2}));
    const at::Tensor part = z.narrow(2, 2 * g, 2).reshape({10, 2});
    const at::Tensor codes = at::cdist(part, book).argmin(1);
    EXPECT_TRUE(at::equal(out.codes.select(2, g).reshape({10}), codes));
    const at::Tensor vectors = book.index_select(0, codes);
    EXPECT_TRUE(at::equal(
        out.vectors.detach().narrow(2, 2 * g, 2).reshape({10, 2}), vectors));
    commitment += (part - vectors).square().mean().item<double>() / 3;
    error += (part - vectors).square().sum(1).mean().item<double>();
  }
  EXPECT_NEAR(Named(out.losses, "commitment").item<double>(), commitment,
              1e-12);
  EXPECT_NEAR(Named(out.metrics, "quantization_error").item<double>(), error,
              1e-10);
  EXPECT_GE(Named(out.metrics, "group2/usage").item<double>(), 0);
  EXPECT_FALSE(at::equal(Codebook(*q, 0), Codebook(*q, 1)));
}

TEST(ProductTest, LossesHaveTheirNumericGradient) {
  at::manual_seed(2);
  auto q = Make(absl::StrCat("groups: 2 ", kVq), 4);
  // Where autograd stops the gradient, the check must not look.
  for (const bool codes : {true, false}) {
    at::Tensor z = at::randn({1, 6, 4}, at::kDouble), e = Codebook(*q, 1);
    z.requires_grad_(!codes);
    e.requires_grad_(codes);
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& x) {
          return Named(q->Quantize(x[0], Train(0)).losses,
                       codes ? "codebook" : "commitment");
        },
        {z, e});
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(ProductTest, TheGradientIsCopiedPartByPart) {
  at::manual_seed(3);
  auto q = Make(absl::StrCat("groups: 2 ", kVq), 4);
  const at::Tensor weights = at::randn({1, 5, 4}, at::kDouble);
  at::Tensor z = at::randn({1, 5, 4}, at::kDouble).requires_grad_();
  (q->Quantize(z, Train(0)).vectors * weights).sum().backward();
  EXPECT_TRUE(at::allclose(z.grad(), weights));
}

TEST(ProductTest, NestsResidualsInGroups) {
  at::manual_seed(4);
  auto q = Make(
      absl::StrCat(
          "groups: 2 quantizer { [type.googleapis.com/semvq.ResidualConfig] { "
          "levels: 3 ",
          kVq, " } }"),
      4);
  EXPECT_EQ(q->info().codes_per_group,
            (std::vector<int64_t>{6, 6, 6, 6, 6, 6}));
  const at::Tensor z = at::randn({2, 5, 4}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_EQ(out.codes.sizes().vec(), (std::vector<int64_t>{2, 5, 6}));
  EXPECT_TRUE(at::equal(out.vectors.detach(), q->Lookup(out.codes).detach()));
  EXPECT_GE(Named(out.metrics, "group1/level2/perplexity").item<double>(), 1);
  EXPECT_TRUE(q->named_parameters().contains("groups.1.levels.2.codebook"));
}

TEST(ProductTest, AsManyGroupsAsDimensions) {
  at::manual_seed(5);
  auto q = Make(absl::StrCat("groups: 4 ", kVq), 4);
  const at::Tensor z = at::randn({2, 5, 4}, at::kDouble);
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_EQ(out.codes.sizes().vec(), (std::vector<int64_t>{2, 5, 4}));
  for (int64_t g = 0; g < 4; ++g) {
    const at::Tensor distance =
        (z.select(2, g).unsqueeze(2) - Codebook(*q, g).view({1, 1, 6})).abs();
    EXPECT_TRUE(at::equal(out.codes.select(2, g), distance.argmin(2)));
  }
}

TEST(ProductTest, OneQuantizerForAllGroups) {
  auto q = Make(absl::StrCat("groups: 2 shared: true ", kVq), 4);
  const at::Tensor codes = at::tensor({3, 3}, at::kLong);
  const at::Tensor vector = q->Lookup(codes);
  EXPECT_TRUE(at::equal(vector.narrow(0, 0, 2), vector.narrow(0, 2, 2)));
  EXPECT_FALSE(q->named_parameters().contains("groups.1.codebook"));
  EXPECT_THROW(q->Lookup(at::tensor({3}, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::tensor({3, 6}, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::tensor({3, -1}, at::kLong)), c10::Error);
}

TEST(ProductTest, AsksForADimensionItsPartsCanHave) {
  const auto error = [](const std::string& fields, int64_t dim) {
    return std::string(MakeQuantizer(Text(fields), dim).status().message());
  };
  EXPECT_NE(error(absl::StrCat("groups: 3 ", kVq), 7).find("has 9"),
            std::string::npos);
  const std::string fsq =
      "quantizer { [type.googleapis.com/semvq.FsqConfig] { levels: [5, 4] } }";
  EXPECT_NE(error("groups: 3 " + fsq, 9).find("has 6"), std::string::npos);
  EXPECT_TRUE(MakeQuantizer(Text("groups: 3 " + fsq), 6).ok());
}

TEST(ProductTest, RefusesBadConfigs) {
  ProductConfig good;
  good.mutable_quantizer()->set_type_url("type.googleapis.com/semvq.VqConfig");
  EXPECT_TRUE(ValidateProduct(good).ok());
  for (const int64_t groups : {-1, 0, 1025}) {
    ProductConfig config = good;
    config.set_groups(groups);
    EXPECT_EQ(ValidateProduct(config).message().substr(0, 7), "groups:");
  }
  EXPECT_EQ(ValidateProduct(ProductConfig()).message().substr(0, 10),
            "quantizer:");
}

}  // namespace
}  // namespace semvq
