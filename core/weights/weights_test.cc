#include "core/weights/weights.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "core/nn/position.h"
#include "core/util/file.h"
#include "core/weights/key_map.h"

namespace semvq {
namespace {

using Shape = std::vector<int64_t>;

std::string ConfigFolder() {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/configs");
}

KeyNames Map(const std::string& name) {
  auto names = KeyNames::Load(
      JoinPath(ConfigFolder(), absl::StrCat("key_maps/", name, ".textproto")));
  EXPECT_TRUE(names.ok()) << names.status();
  return *std::move(names);
}

bool Contains(absl::string_view text, absl::string_view part) {
  return text.find(part) != absl::string_view::npos;
}

WeightsImport Import(const std::string& from, const std::string& to,
                     int first_layer = 0) {
  WeightsImport import;
  import.set_name("it");
  import.set_from(from);
  import.set_to(to);
  import.set_first_layer(first_layer);
  return import;
}

class WeightsTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(3); }

  ImportPlan Plan(const WeightsImport& import, const KeyNames& names,
                  const NamedTensors& in_file, const NamedTensors& model) {
    const std::string path =
        JoinPath(::testing::TempDir(), "weights.safetensors");
    EXPECT_TRUE(WriteSafetensors(path, in_file).ok());
    auto file = SafetensorsFile::Open(path);
    EXPECT_TRUE(file.ok()) << file.status();
    auto plan = PlanImport(import, names, **file, model);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? *std::move(plan) : ImportPlan();
  }
};

TEST(KeyMaps, AllThatComeAlongAreWellFormed) {
  const std::string folder = JoinPath(ConfigFolder(), "key_maps");
  const auto files = ListDirectory(folder);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_GE(files->size(), 6u);
  for (const std::string& file : *files) {
    const auto names = KeyNames::Load(JoinPath(folder, file));
    ASSERT_TRUE(names.ok()) << names.status();
    EXPECT_FALSE(names->summary().empty()) << file;
  }
}

TEST(KeyMaps, BadOnesNameAllThatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {"rules {", "map:1:"},
      {"rulez { }", "rulez"},
      {"", "no rules"},
      {"rules { theirs: 'a' }", "rules[0]: no name `ours`"},
      {"rules { ours: 'a' theirs: '' }", "rules[0]: no name `theirs`"},
      {"rules { ours: 'a.{n}' theirs: 'b' }", "differ in {n}"},
      {"rules { ours: 'a' theirs: 'b.{p}' }", "differ in {p}"},
      {"rules { ours: '{n}.{n}' theirs: '{n}.{n}' }", "twice"},
      {"rules { ours: 'a' theirs: ['b', '', ''] }", "more than one empty"},
      {"rules { ours: 'a' theirs: 'b' } unused: '('", "unused: \"(\""},
      {"rules { ours: 'a' theirs: 'b' } ours_only: '*'", "ours_only: \"*\""},
      {"rules { ours: 'a' theirs: 'b' } renames { pattern: 'x' with: '\\\\1' }",
       "renames"},
  };
  for (const auto& [text, expected] : cases) {
    const auto names = KeyNames::Parse(text, "map");
    ASSERT_FALSE(names.ok()) << text;
    EXPECT_EQ(names.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(Contains(names.status().message(), expected))
        << expected << " in " << names.status();
  }
  const auto two = KeyNames::Parse(
      "rules { ours: 'a' theirs: 'b' } unused: '(' ours_only: '('", "map");
  EXPECT_TRUE(Contains(two.status().message(), "unused"));
  EXPECT_TRUE(Contains(two.status().message(), "ours_only"));
  EXPECT_TRUE(absl::IsNotFound(KeyNames::Load("/no/such/map").status()));
  const auto lost = FindKeyMap("key_maps/none.textproto", "/a", {"/b"});
  EXPECT_TRUE(Contains(lost.status().message(), "/b/key_maps/none.textproto"));
}

TEST(KeyMaps, PlaceholdersCarryOver) {
  const KeyNames names = Map("hf_bert");
  const auto matches = names.Find("layer.11.attn.qkv.bias", 6);
  ASSERT_EQ(matches.size(), 1u);
  EXPECT_EQ(
      matches[0].theirs,
      (std::vector<std::string>{"encoder.layer.17.attention.self.query.bias",
                                "encoder.layer.17.attention.self.key.bias",
                                "encoder.layer.17.attention.self.value.bias"}));
  EXPECT_TRUE(names.Find("layer.x.attn.qkv.bias", 0).empty());
  EXPECT_TRUE(names.Find("layer.1.attn.qkv.bias.more", 0).empty());
  EXPECT_TRUE(names.Find("my.layer.1.attn.qkv.bias", 0).empty());
  EXPECT_EQ(names.Canonical("a.LayerNorm.gamma"), "a.LayerNorm.weight");
  EXPECT_TRUE(names.IsUnused("pooler.dense.bias"));
  EXPECT_FALSE(names.IsUnused("pooler.dense.bias2"));
}

TEST_F(WeightsTest, StacksRenamesAndReports) {
  const at::Tensor q = at::randn({2, 2}), k = at::randn({2, 2}),
                   v = at::randn({2, 2}), norm = at::randn({2});
  const std::string attention = "bert.encoder.layer.3.attention.";
  at::Tensor qkv = at::zeros({6, 2}), gamma = at::zeros({2}),
             cross = at::zeros({2, 2}), other = at::zeros({1});
  const ImportPlan plan =
      Plan(Import("bert.", "fusion.", 3), Map("hf_bert"),
           {{attention + "self.query.weight", q},
            {attention + "self.key.weight", k},
            {attention + "self.value.weight", v.to(at::kHalf)},
            {attention + "output.LayerNorm.gamma", norm},
            {"bert.pooler.dense.bias", norm},
            {"cls.extra", norm}},
           {{"fusion.layer.0.attn.qkv.weight", qkv},
            {"fusion.layer.0.norm1.weight", gamma},
            {"fusion.layer.0.cross_attn.q.weight", cross},
            {"text.layer.0.norm1.weight", other}});
  ASSERT_EQ(plan.copies.size(), 2u);
  EXPECT_TRUE(plan.copies[0].target.is_same(qkv));
  EXPECT_TRUE(at::equal(plan.copies[0].value.narrow(0, 0, 4), at::cat({q, k})));
  EXPECT_TRUE(at::equal(plan.copies[0].value.narrow(0, 4, 2),
                        v.to(at::kHalf).to(at::kFloat)));
  EXPECT_TRUE(at::equal(plan.copies[1].value, norm));
  EXPECT_EQ(plan.missing,
            std::vector<std::string>{"fusion.layer.0.cross_attn.q.weight"});
  EXPECT_EQ(plan.used.size(), 4u);
  EXPECT_EQ(plan.unused, std::set<std::string>{"bert.pooler.dense.bias"});
  EXPECT_FALSE(plan.hint.has_value());
}

TEST_F(WeightsTest, WrongShapesAndTypesAreListed) {
  at::Tensor w = at::zeros({2, 3}), qkv = at::zeros({6});
  const KeyNames names = *KeyNames::Parse(
      "rules { ours: 'w' theirs: 'w' } rules { ours: 'x' theirs: 'x' }"
      "rules { ours: 'qkv' theirs: ['q', '', 'v'] }",
      "map");
  const at::Tensor q = at::ones({2});
  ImportPlan plan = Plan(Import("", "m."), names,
                         {{"w", at::zeros({3, 2})},
                          {"x", at::zeros({2, 3}, at::kLong)},
                          {"q", q},
                          {"v", at::ones({5})}},
                         {{"m.w", w}, {"m.x", w}, {"m.qkv", qkv}});
  ASSERT_EQ(plan.misshaped.size(), 3u);
  EXPECT_EQ(plan.misshaped[0], "m.w [2,3] Float from w [3,2] Float");
  EXPECT_EQ(plan.misshaped[1], "m.x [2,3] Float from x [2,3] Long");
  EXPECT_EQ(plan.misshaped[2],
            "m.qkv [6] Float from q [2] Float + v [5] Float");
  // Zeros fill what is left.
  plan = Plan(Import("", "m."), names, {{"q", q}, {"v", q}}, {{"m.qkv", qkv}});
  ASSERT_EQ(plan.copies.size(), 1u);
  EXPECT_TRUE(at::equal(plan.copies[0].value,
                        at::tensor({1.f, 1.f, 0.f, 0.f, 1.f, 1.f})));
}

TEST_F(WeightsTest, AlternativesAreTakenInOrder) {
  const KeyNames names = Map("hf_bert_mlm");
  const at::Tensor words = at::randn({4, 2}), own = at::randn({4, 2});
  const at::Tensor w = at::zeros({4, 2});
  const std::string tied = "bert.embeddings.word_embeddings.weight";
  const std::string untied = "cls.predictions.decoder.weight";
  const NamedTensors model = {{"mlm.decoder.weight", w}};
  EXPECT_TRUE(at::equal(
      Plan(Import("", "mlm."), names, {{tied, words}}, model).copies[0].value,
      words));
  EXPECT_TRUE(at::equal(
      Plan(Import("", "mlm."), names, {{tied, words}, {untied, own}}, model)
          .copies[0]
          .value,
      own));
}

TEST_F(WeightsTest, PositionsAreResized) {
  const KeyNames names = Map("timm_vit");
  const at::Tensor table = at::randn({1, 1 + 4 * 4, 3});
  const at::Tensor target = at::zeros({1, 1 + 6 * 6, 3});
  WeightsImport import = Import("visual_encoder.", "image.");
  const NamedTensors in_file = {{"visual_encoder.pos_embed", table}};
  for (bool antialias : {false, true}) {
    import.set_antialias(antialias);
    const ImportPlan plan =
        Plan(import, names, in_file, {{"image.pos_embed", target}});
    ASSERT_EQ(plan.copies.size(), 1u);
    EXPECT_TRUE(
        at::equal(plan.copies[0].value,
                  ResizePositions(table, {4, 4}, {6, 6}, 1, antialias)));
    EXPECT_EQ(plan.resized,
              std::vector<std::string>{"image.pos_embed [1,17,3] to [1,37,3]"});
  }
  EXPECT_FALSE(at::allclose(ResizePositions(table, {4, 4}, {6, 6}, 1, true),
                            ResizePositions(table, {4, 4}, {6, 6}, 1, false)));
  // Not square, or of another width.
  for (const Shape& shape : {Shape{1, 36, 3}, Shape{1, 37, 4}}) {
    const ImportPlan plan =
        Plan(import, names, in_file, {{"image.pos_embed", at::zeros(shape)}});
    EXPECT_EQ(plan.misshaped.size(), 1u);
  }
}

TEST_F(WeightsTest, RelativePositionsAreResized) {
  const at::Tensor table = at::randn({7 * 7 + 3, 2});
  const at::Tensor target = at::zeros({11 * 11 + 3, 2});
  const NamedTensors model = {
      {"image.rel_pos_bias.1.relative_position_bias_table", target}};
  const ImportPlan plan =
      Plan(Import("", "image."), Map("timm_beit"),
           {{"blocks.1.attn.relative_position_bias_table", table}}, model);
  ASSERT_EQ(plan.copies.size(), 1u);
  EXPECT_EQ(plan.copies[0].value.sizes(), target.sizes());
  EXPECT_TRUE(at::equal(plan.copies[0].value.narrow(0, 121, 3),
                        table.narrow(0, 49, 3)));
}

TEST_F(WeightsTest, WrongPrefixesAreExplained) {
  const KeyNames names = Map("timm_vit");
  const at::Tensor x = at::zeros({1, 1, 4});
  const ImportPlan plan =
      Plan(Import("", "image."), names, {{"visual_encoder.cls_token", x}},
           {{"image.cls_token", x}});
  EXPECT_TRUE(plan.copies.empty());
  EXPECT_EQ(plan.hint, "visual_encoder.");

  const std::string path = JoinPath(::testing::TempDir(), "w.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"cls_token", x}}).ok());
  auto file = SafetensorsFile::Open(path);
  const auto lost = PlanImport(Import("", "imagee."), names, **file,
                               {{"image.cls_token", x}, {"itc.w", x}});
  EXPECT_TRUE(Contains(lost.status().message(), "image., itc."))
      << lost.status();
}

// Every tensor comes back, bit by bit, for every naming.
TEST_F(WeightsTest, ExportIsTheInverseOfImport) {
  struct Case {
    const char* map;
    int first_layer;
    std::vector<std::pair<const char*, Shape>> model;
    std::vector<std::pair<const char*, Shape>> theirs;
  };
  const Case cases[] = {
      {"hf_bert",
       6,
       {{"layer.0.attn.qkv.weight", {12, 4}},
        {"layer.0.cross_attn.kv.bias", {8}},
        {"layer.1.norm_cross.bias", {4}},
        {"layer.2.mlp.fc1.weight", {16, 4}}},
       {{"encoder.layer.6.attention.self.query.weight", {4, 4}},
        {"encoder.layer.6.attention.self.key.weight", {4, 4}},
        {"encoder.layer.6.attention.self.value.weight", {4, 4}},
        {"encoder.layer.6.crossattention.self.key.bias", {4}},
        {"encoder.layer.6.crossattention.self.value.bias", {4}},
        {"encoder.layer.7.crossattention.output.LayerNorm.bias", {4}},
        {"encoder.layer.8.intermediate.dense.weight", {16, 4}}}},
      {"timm_vit",
       0,
       {{"cls_token", {1, 1, 4}},
        {"pos_embed", {1, 5, 4}},
        {"mask_token", {1, 1, 4}},
        {"blocks.11.ls1.gamma", {4}}},
       {{"cls_token", {1, 1, 4}},
        {"pos_embed", {1, 5, 4}},
        {"blocks.11.ls1.gamma", {4}}}},
      {"timm_beit",
       0,
       {{"rel_pos_bias.3.relative_position_bias_table", {12, 2}},
        {"blocks.3.attn.qkv.bias", {12}},
        {"blocks.3.ls2.gamma", {4}}},
       {{"blocks.3.attn.relative_position_bias_table", {12, 2}},
        {"blocks.3.attn.q_bias", {4}},
        {"blocks.3.attn.v_bias", {4}},
        {"blocks.3.gamma_2", {4}}}},
      {"hf_bert_mlm",
       0,
       {{"decoder.weight", {9, 4}}, {"norm.bias", {4}}},
       {{"cls.predictions.decoder.weight", {9, 4}},
        {"cls.predictions.transform.LayerNorm.bias", {4}}}},
      {"albef_itc",
       0,
       {{"image_proj.weight", {2, 4}}, {"temperature", {}}},
       {{"vision_proj.weight", {2, 4}}, {"temp", {}}}},
      {"albef_itm", 0, {{"head.bias", {2}}}, {{"itm_head.bias", {2}}}},
      {"albef_classifier",
       0,
       {{"dense.weight", {4, 4}}, {"classifier.bias", {3}}},
       {{"cls_head.0.weight", {4, 4}}, {"cls_head.2.bias", {3}}}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.map);
    const KeyNames names = Map(c.map);
    NamedTensors model, restored;
    for (const auto& [name, shape] : c.model) {
      model.emplace_back(absl::StrCat("m.", name), at::randn(shape));
      restored.emplace_back(model.back().first, at::zeros(shape));
    }
    WeightsImport part = Import("pre.", "m.", c.first_layer);
    const auto exported = ExportWeights(part, names, model);
    ASSERT_TRUE(exported.ok()) << exported.status();
    EXPECT_TRUE(exported->unknown.empty());
    std::map<std::string, Shape> got, want;
    for (const auto& [name, tensor] : exported->tensors)
      got[name] = tensor.sizes().vec();
    for (const auto& [name, shape] : c.theirs)
      want[absl::StrCat("pre.", name)] = shape;
    EXPECT_EQ(got, want);

    const ImportPlan plan = Plan(part, names, exported->tensors, restored);
    EXPECT_TRUE(plan.missing.empty() && plan.misshaped.empty());
    EXPECT_EQ(plan.used.size(), exported->tensors.size());
    EXPECT_EQ(plan.copies.size() + plan.ours_only.size(), model.size());
    for (const ImportPlan::Copy& copy : plan.copies) {
      for (const auto& [name, tensor] : model) {
        if (name != copy.name) continue;
        at::Tensor expected = tensor;
        if (copy.name == "m.blocks.3.attn.qkv.bias") {
          expected = tensor.clone();
          expected.narrow(0, 4, 4).zero_();  // Keys have no bias there.
        }
        EXPECT_TRUE(at::equal(copy.value, expected)) << name;
      }
    }
  }
}

TEST_F(WeightsTest, ExportSaysWhatItCannotWrite) {
  const auto exported =
      ExportWeights(Import("", "m."), Map("timm_vit"),
                    {{"m.patch_embed.stem.0.weight", at::zeros({1})},
                     {"m.mask_token", at::zeros({1, 1, 4})}});
  ASSERT_TRUE(exported.ok());
  EXPECT_EQ(exported->unknown,
            std::vector<std::string>{"m.patch_embed.stem.0.weight"});
  EXPECT_EQ(exported->ours_only, std::vector<std::string>{"m.mask_token"});
  const auto uneven =
      ExportWeights(Import("", "m."), Map("hf_bert"),
                    {{"m.layer.0.attn.qkv.bias", at::zeros({10})}});
  EXPECT_TRUE(Contains(uneven.status().message(), "3 equal pieces"));
}

}  // namespace
}  // namespace semvq
