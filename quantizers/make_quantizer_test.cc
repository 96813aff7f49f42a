#include "quantizers/make_quantizer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/checkpoint/safetensors.h"

namespace semvq {
namespace {

using ::testing::HasSubstr;

std::string Error(const std::string& config, int64_t dim) {
  const auto made = MakeQuantizer(config, dim);
  EXPECT_FALSE(made.ok());
  return std::string(made.status().message());
}

QuantizeContext Train(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.step = step;
  return context;
}

TEST(MakeQuantizerTest, MakesQuantizersOfText) {
  const auto made = MakeQuantizer(
      "[type.googleapis.com/semvq.ProductConfig] {\n"
      "  groups: 2  # two halves\n"
      "  quantizer { [type.googleapis.com/semvq.FsqConfig] { levels: [5, 4] } "
      "}\n"
      "}  # the end",
      4);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)->info().codes_per_group, (std::vector<int64_t>{20, 20}));
  EXPECT_EQ((*made)->info().dim, 4);
  const at::Tensor features = at::randn({2, 3, 4});
  const Quantized out = (*made)->Quantize(features, QuantizeContext());
  EXPECT_TRUE(at::equal((*made)->Lookup(out.codes), out.vectors));
}

TEST(MakeQuantizerTest, TheSeedDecides) {
  const std::string config =
      "[type.googleapis.com/semvq.GumbelConfig] { num_codes: 16 }";
  const at::Tensor features = 10 * at::randn({1, 50, 4});
  const auto codes = [&](uint64_t seed) {
    return (*MakeQuantizer(config, 4, seed))
        ->Quantize(features, QuantizeContext())
        .codes;
  };
  const at::Tensor first = codes(1);
  at::manual_seed(77);
  EXPECT_TRUE(at::equal(first, codes(1)));
  EXPECT_FALSE(at::equal(first, codes(2)));
}

TEST(MakeQuantizerTest, MistakesHaveTheirPlace) {
  EXPECT_THAT(Error("[type.googleapis.com/semvq.FsqConfig] {\n levls: 3 }", 1),
              HasSubstr("config:2:2: quantizers[\"quantizer\"].config.levls: "
                        "unknown field \"levls\""));
  EXPECT_THAT(Error("[type.googleapis.com/semvq.FsqConfig] {", 1),
              HasSubstr("is not closed"));
  EXPECT_THAT(Error("[type.googleapis.com/semvq.FsConfig] {}", 1),
              HasSubstr("did you mean \"semvq.FsqConfig\"?"));
  EXPECT_THAT(Error("[type.googleapis.com/semvq.FsqConfig] { levels: 1 }", 1),
              HasSubstr("levels[0]: got 1, expected 2 to 1000"));
  EXPECT_THAT(
      Error("[type.googleapis.com/semvq.ResidualConfig] { levels: 0 quantizer {"
            " [type.googleapis.com/semvq.LfqConfig] { bits: 31 } } }",
            8),
      ::testing::AllOf(HasSubstr("levels: got 0"),
                       HasSubstr("quantizer.bits: bits: got 31")));
  EXPECT_THAT(Error("[type.googleapis.com/semvq.LfqConfig] { bits: 8 }", 9),
              HasSubstr("got features of dimension 9, but this "
                        "semvq.LfqConfig has 8"));
  EXPECT_THAT(Error("[type.googleapis.com/semvq.NoneConfig] {}", 0),
              HasSubstr("dim: got 0"));
  EXPECT_FALSE(MakeQuantizer(google::protobuf::Any(), 4).ok());
}

TEST(MakeQuantizerTest, LoadsWhatWasTrained) {
  const std::string config =
      "[type.googleapis.com/semvq.VqEmaConfig] { num_codes: 6 codebook { "
      "reservoir: 8 } }";
  const auto trained = *MakeQuantizer(config, 3, 1);
  for (int64_t step = 0; step < 3; ++step) {
    trained->Quantize(at::randn({2, 20, 3}), Train(step));
    ASSERT_TRUE(trained->AfterStep(Train(step + 1)).ok());
  }
  NamedTensors state;
  for (const auto& item : trained->named_parameters())
    state.emplace_back("book.quantizer." + item.key(), item.value());
  for (const auto& item : trained->named_buffers())
    state.emplace_back("book.quantizer." + item.key(), item.value());
  const std::string path = ::testing::TempDir() + "/quantizer.safetensors";
  ASSERT_TRUE(WriteSafetensors(path, state).ok());

  const auto fresh = *MakeQuantizer(config, 3, 2);
  const at::Tensor features = at::randn({1, 30, 3});
  const at::Tensor expected =
      trained->Quantize(features, QuantizeContext()).vectors;
  EXPECT_FALSE(at::equal(fresh->Quantize(features, QuantizeContext()).vectors,
                         expected));
  const absl::Status loaded = LoadQuantizer(path, "book.quantizer.", *fresh);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_TRUE(at::equal(fresh->Quantize(features, QuantizeContext()).vectors,
                        expected));

  EXPECT_THAT(std::string(LoadQuantizer(path, "codebook.", *fresh).message()),
              HasSubstr("no tensor codebook."));
  const auto other = *MakeQuantizer(config, 4, 1);
  EXPECT_THAT(
      std::string(LoadQuantizer(path, "book.quantizer.", *other).message()),
      HasSubstr("expected [6, 4]"));
}

}  // namespace
}  // namespace semvq
