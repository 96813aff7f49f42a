// Encoders against the peers' own results, with the peers' weights read through
// init_from and the key maps. generate.py made the fixtures.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstdlib>
#include <functional>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/safetensors.h"
#include "core/plugin/encoder.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "encoders/bert_text/bert_text.h"
#include "encoders/cross_fusion/cross_fusion.h"
#include "encoders/vit/vit.h"
#include "trainer/init_from.h"

namespace semvq {
namespace {

constexpr double kTolerance = 1e-4;

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

std::string Fixture(const std::string& name) {
  return Runfile(absl::StrCat("tests/golden/encoders/", name));
}

// A fixture's tensors.
class Golden {
 public:
  explicit Golden(const std::string& file) : path_(Fixture(file)) {
    auto opened = SafetensorsFile::Open(path_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    file_ = *std::move(opened);
  }
  at::Tensor operator[](const std::string& name) const {
    auto tensor = file_->Get(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *tensor;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::unique_ptr<SafetensorsFile> file_;
};

// Instances as the trainer's model holds them.
struct Instances : torch::nn::Module {
  template <class T>
  std::shared_ptr<T> Add(const std::string& name,
                         absl::StatusOr<std::shared_ptr<T>> made) {
    EXPECT_TRUE(made.ok()) << made.status();
    (*made)->eval();
    return register_module(name, *made);
  }
};

struct Part {
  std::string key_map, to;
  int first_layer = 0;
  bool antialias = false;
};

// Reads the fixture's weights; every parameter but `missing` must be found, and
// every tensor of the fixture's weights but `unexpected` be used.
void Load(const Golden& golden, const std::vector<Part>& parts,
          torch::nn::Module& model, const std::string& missing = "",
          const std::string& unexpected = "") {
  InitFrom config;
  for (const Part& part : parts) {
    WeightsImport* import = config.add_weights();
    import->set_name(part.to);
    import->set_path(golden.path());
    import->set_key_map(absl::StrCat("key_maps/", part.key_map, ".textproto"));
    import->set_from("weights.");
    import->set_to(part.to);
    import->set_first_layer(part.first_layer);
    import->set_antialias(part.antialias);
  }
  config.add_allow_unexpected("(in|out)\\..*");
  config.add_allow_missing(missing);
  config.add_allow_unexpected(unexpected);
  const auto resolved = ResolveInitFrom(config, "/", {Runfile("configs")});
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  const auto report = InitParameters(*resolved, "", model);
  ASSERT_TRUE(report.ok()) << report.status();
}

double Difference(const at::Tensor& ours, const at::Tensor& theirs) {
  EXPECT_EQ(ours.sizes(), theirs.sizes());
  if (ours.sizes() != theirs.sizes()) return 1e9;
  return (ours - theirs).abs().max().item<double>();
}

// Every parameter matters: with any one of them a little off, `difference`
// leaves the tolerance. So the comparison can fail.
void ExpectSensitive(torch::nn::Module& model,
                     const std::function<double()>& difference,
                     const std::string& but = "") {
  at::NoGradGuard no_grad;
  torch::manual_seed(1);
  EXPECT_LT(difference(), kTolerance);
  for (const auto& p : model.named_parameters()) {
    if (!but.empty() && absl::StrContains(p.key(), but)) continue;
    const at::Tensor before = p.value().clone();
    p.value().add_(at::randn_like(before), 0.02);
    EXPECT_GT(difference(), kTolerance) << p.key();
    p.value().copy_(before);
  }
  EXPECT_LT(difference(), kTolerance);
}

VitConfig SmallVit(int size) {
  VitConfig config;
  config.set_patch_size(8);
  config.set_dim(24);
  config.set_depth(2);
  config.set_heads(3);
  config.set_image_size(size);
  return config;
}

class EncodersTest : public ::testing::Test {
 protected:
  std::shared_ptr<ImageEncoder> MakeImage(const VitConfig& config) {
    return model_.Add<ImageEncoder>("image", MakeVit(config, {}));
  }

  Instances model_;
  at::NoGradGuard no_grad_;
};

TEST_F(EncodersTest, VitEqualsTimm) {
  const Golden golden("vit.safetensors");
  auto vit = MakeImage(SmallVit(32));
  Load(golden, {{"timm_vit", "image."}}, model_);
  ExpectSensitive(
      model_,
      [&] {
        return Difference(vit->Encode({golden["in.pixels"], {}}).values,
                          golden["out.tokens"]);
      },
      "mask_token");
  // Interpolated in the model, as DeiT and ALBEF do it.
  EXPECT_LT(Difference(vit->Encode({golden["in.pixels_48"], {}}).values,
                       golden["out.tokens_48_plain"]),
            kTolerance);
}

TEST_F(EncodersTest, VitInterpolatedWhenReadEqualsTimm) {
  const Golden golden("vit.safetensors");
  auto vit = MakeImage(SmallVit(48));
  Load(golden, {{"timm_vit", "image.", 0, true}}, model_);
  const at::Tensor tokens = vit->Encode({golden["in.pixels_48"], {}}).values;
  EXPECT_LT(Difference(tokens, golden["out.tokens_48_antialias"]), kTolerance);
  // The two ways to interpolate are not the same.
  EXPECT_GT(Difference(tokens, golden["out.tokens_48_plain"]), kTolerance);
  Load(golden, {{"timm_vit", "image.", 0, false}}, model_);
  EXPECT_LT(Difference(vit->Encode({golden["in.pixels_48"], {}}).values,
                       golden["out.tokens_48_plain"]),
            kTolerance);
}

TEST_F(EncodersTest, BeitEqualsTimm) {
  for (const auto& [relative, file] :
       std::map<VitConfig::RelativePositions, std::string>{
           {VitConfig::PER_LAYER, "beit_per_layer.safetensors"},
           {VitConfig::SHARED, "beit_shared.safetensors"}}) {
    SCOPED_TRACE(file);
    const Golden golden(file);
    Instances model;
    VitConfig config = SmallVit(32);
    config.set_absolute_positions(false);
    config.set_relative_positions(relative);
    config.set_layer_scale(0.1);
    auto vit = model.Add<ImageEncoder>("image", MakeVit(config, {}));
    Load(golden, {{"timm_beit", "image."}}, model);
    ExpectSensitive(
        model,
        [&] {
          return Difference(vit->Encode({golden["in.pixels"], {}}).values,
                            golden["out.tokens"]);
        },
        "mask_token");
    EXPECT_LT(Difference(vit->Encode({golden["in.pixels_48"], {}}).values,
                         golden["out.tokens_48"]),
              kTolerance);
  }
}

class BertTest : public EncodersTest {
 protected:
  BertTest() : golden_("bert.safetensors") {
    input_ = {golden_["in.ids"], golden_["in.mask"]};
  }

  std::shared_ptr<TextEncoder> MakeText(int layers) {
    BertTextConfig config;
    config.set_dim(24);
    config.set_layers(layers);
    config.set_heads(3);
    config.set_intermediate(40);
    config.set_max_positions(16);
    PluginContext context;
    context.vocab_size = 50;
    return model_.Add<TextEncoder>("text", MakeBertText(config, context));
  }

  std::shared_ptr<FusionEncoder> MakeFusion() {
    CrossFusionConfig config;
    config.set_layers(2);
    config.set_heads(3);
    config.set_intermediate(40);
    ContractBook book;
    Contract tokens;
    tokens.provides = {{"tokens", 24}};
    book.Add("text", tokens);
    book.Add("visual", tokens);
    PluginContext context;
    context.book = &book;
    return model_.Add<FusionEncoder>("fusion",
                                     MakeCrossFusion(config, context));
  }

  // At real tokens; what stands under padding is nobody's.
  double AtTokens(const at::Tensor& ours, const std::string& theirs) const {
    const at::Tensor real = input_.mask.unsqueeze(-1).to(at::kFloat);
    return Difference(ours * real, golden_[theirs] * real);
  }

  Golden golden_;
  TextInput input_;
};

TEST_F(BertTest, TextEqualsTransformers) {
  auto text = MakeText(4);
  Load(golden_, {{"hf_bert", "text."}}, model_, "",
       "weights\\..*crossattention.*");
  ExpectSensitive(model_, [&] {
    return AtTokens(text->Encode(input_).values, "out.layer_4");
  });
}

TEST_F(BertTest, OneBertSplitsIntoTextAndFusion) {
  auto text = MakeText(2);
  auto fusion = MakeFusion();
  Load(golden_, {{"hf_bert", "text."}, {"hf_bert", "fusion.", 2}}, model_, "",
       "weights\\.encoder\\.layer\\.[01]\\.crossattention.*");
  EXPECT_LT(AtTokens(text->Encode(input_).values, "out.layer_2"), kTolerance);
  Tokens visual;
  visual.values = golden_["in.visual"];
  visual.mask = golden_["in.visual_mask"];
  ExpectSensitive(model_, [&] {
    return AtTokens(
        fusion->Fuse(text->Encode(input_), {visual}, at::Tensor()).values,
        "out.fused");
  });
}

TEST(GoldenFiles, AreThoseThatTheGeneratorMade) {
  const auto manifest = ReadFile(Fixture("manifest"));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  const auto pins = ReadFile(Runfile("tests/parity/requirements.txt"));
  ASSERT_TRUE(pins.ok()) << pins.status();
  int files = 0, versions = 0;
  for (absl::string_view line :
       absl::StrSplit(*manifest, '\n', absl::SkipEmpty())) {
    if (absl::StartsWith(line, "#")) {
      for (absl::string_view pin : absl::StrSplit(line.substr(2), ' ')) {
        if (absl::StartsWith(pin, "torch==")) continue;  // setup.sh pins it.
        EXPECT_TRUE(absl::StrContains(*pins, absl::StrCat(pin, "\n")))
            << "made with " << pin << ", tests/parity compares with another";
        ++versions;
      }
      continue;
    }
    const std::vector<std::string> parts = absl::StrSplit(line, "  ");
    ASSERT_EQ(parts.size(), 2u) << line;
    const auto hash = Sha256File(Fixture(parts[1]));
    ASSERT_TRUE(hash.ok()) << hash.status();
    EXPECT_EQ(*hash, parts[0])
        << parts[1] << " is not the one of the manifest; run generate.py";
    ++files;
  }
  EXPECT_EQ(files, 5);
  EXPECT_EQ(versions, 2);
}

}  // namespace
}  // namespace semvq
