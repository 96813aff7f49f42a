#include "tools/convert/convert.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"

namespace semvq {
namespace {

class ConvertTest : public ::testing::Test {
 protected:
  void SetUp() override {
    places_ = {::testing::TempDir(),
               {absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                             std::getenv("TEST_WORKSPACE"), "/configs")}};
    ASSERT_TRUE(WriteSafetensors(
                    JoinPath(places_.working_folder, "model.safetensors"),
                    {{"text.layer.0.norm1.bias", at::full({2}, 1.f)},
                     {"text.layer.1.attn.qkv.bias", at::arange(6, at::kFloat)},
                     {"fusion.layer.0.norm1.bias", at::full({2}, 2.f)},
                     {"fusion.layer.0.cross_attn.q.bias", at::full({2}, 3.f)},
                     {"image.cls_token", at::zeros({1, 1, 2})},
                     {"image.mask_token", at::zeros({1, 1, 2})},
                     {"image.patch_embed.stem.0.bias", at::zeros({2})}})
                    .ok());
  }

  absl::StatusOr<std::string> Run(std::vector<std::string> args) {
    args.insert(args.begin(),
                {"--checkpoint=model.safetensors", "--out=out.safetensors"});
    return Convert(args, places_);
  }

  std::unique_ptr<SafetensorsFile> Written() {
    auto file = SafetensorsFile::Open(
        JoinPath(places_.working_folder, "out.safetensors"));
    EXPECT_TRUE(file.ok()) << file.status();
    return *std::move(file);
  }

  ConvertPlaces places_;
};

const char kText[] = "--part=key_map: 'key_maps/hf_bert.textproto' to: 'text.'";
const char kFusion[] =
    "--part=key_map: 'key_maps/hf_bert.textproto' to: 'fusion.' "
    "first_layer: 2";
const char kImage[] =
    "--part=key_map: 'key_maps/timm_vit.textproto' to: 'image.'";

TEST_F(ConvertTest, JoinsTextAndFusionToOneBert) {
  const auto done = Run({kText, kFusion, "--drop=fusion.*cross_attn.*"});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(absl::StrContains(
      *done, "left out by --drop: fusion.layer.0.cross_attn.q.bias"));
  const auto file = Written();
  EXPECT_EQ(std::set<std::string>(file->names().begin(), file->names().end()),
            (std::set<std::string>{
                "encoder.layer.0.attention.output.LayerNorm.bias",
                "encoder.layer.1.attention.self.key.bias",
                "encoder.layer.1.attention.self.query.bias",
                "encoder.layer.1.attention.self.value.bias",
                "encoder.layer.2.attention.output.LayerNorm.bias"}));
  EXPECT_TRUE(at::equal(*file->Get("encoder.layer.1.attention.self.key.bias"),
                        at::tensor({2.f, 3.f})));
  EXPECT_TRUE(
      at::equal(*file->Get("encoder.layer.2.attention.output.LayerNorm.bias"),
                at::full({2}, 2.f)));
  EXPECT_EQ(file->metadata().at("format"), "pt");
}

TEST_F(ConvertTest, NothingIsLeftOutSilently) {
  const auto failed = Run({kImage});
  EXPECT_TRUE(absl::StrContains(failed.status().message(),
                                "image.patch_embed.stem.0.bias"))
      << failed.status();
  const auto done = Run({kImage, "--drop=image\\.patch_embed\\.stem.*"});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(absl::StrContains(*done, "no such: image.mask_token"));
}

TEST_F(ConvertTest, MistakesAreNamed) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{}, "--part is missing"},
      {{"--prat=x"}, "unknown argument --prat=x"},
      {{"--part=to: 'text.'"}, "key_map"},
      {{"--part=too: 'text.'"}, "WeightsImport"},
      {{kText, "--drop=("}, "no RE2 expression"},
      {{"--part=key_map: 'key_maps/none.textproto' to: 'text.'"},
       "no key map key_maps/none.textproto"},
      {{"--part=key_map: 'key_maps/hf_bert.textproto' to: 'txt.'"},
       "expected one of fusion., image., text."},
      // Both would be layer 0.
      {{kText, "--part=key_map: 'key_maps/hf_bert.textproto' to: 'fusion.'"},
       "given twice"},
      {{"--checkpoint=none.safetensors", kText}, "none.safetensors"},
  };
  for (const auto& [args, expected] : cases) {
    const auto done = Run(args);
    ASSERT_FALSE(done.ok()) << expected;
    EXPECT_TRUE(absl::StrContains(done.status().message(), expected))
        << expected << " in " << done.status();
  }
}

}  // namespace
}  // namespace semvq
