// A checkpoint in ALBEF's layout fills the paper's composition. Its names are
// written out here from ALBEF's model (models/model_pretrain.py of its public
// code), not taken from the key maps.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/checkpoint/safetensors.h"
#include "core/config/load.h"
#include "core/config/merge.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "tests/shapes.h"
#include "trainer/init_from.h"
#include "trainer/model.h"

namespace semvq {
namespace {

// Those of tiny.pbtxt.
constexpr int64_t kDim = 32, kHidden = 4 * kDim, kProjection = 16;
constexpr int64_t kPositions = 16, kQueue = 24;

std::string Runfile(const std::string& path) {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/", path);
}

class Albef {
 public:
  explicit Albef(int64_t vocab) : vocab_(vocab) {
    torch::manual_seed(4);
    for (const char* m : {"", "_m"}) {
      Vit(absl::StrCat("visual_encoder", m, "."));
      Bert(absl::StrCat("text_encoder", m, "."));
      Linear(absl::StrCat("vision_proj", m), kProjection, kDim);
      Linear(absl::StrCat("text_proj", m), kProjection, kDim);
    }
    Add("temp", {});
    Linear("itm_head", 2, kDim);
    Add("image_queue", {kProjection, kQueue});
    Add("text_queue", {kProjection, kQueue});
    tensors["queue_ptr"] = at::zeros({1}, at::kLong);
  }

  std::map<std::string, at::Tensor> tensors;

 private:
  void Add(const std::string& name, at::IntArrayRef shape) {
    tensors[name] = at::rand(shape);
  }
  void Linear(const std::string& name, int64_t out, int64_t in) {
    Add(name + ".weight", {out, in});
    Add(name + ".bias", {out});
  }
  void Norm(const std::string& name) {
    Add(name + ".weight", {kDim});
    Add(name + ".bias", {kDim});
  }
  void Vit(const std::string& p) {
    Add(p + "cls_token", {1, 1, kDim});
    Add(p + "pos_embed", {1, 1 + 6 * 6, kDim});
    Add(p + "patch_embed.proj.weight", {kDim, 3, 8, 8});
    Add(p + "patch_embed.proj.bias", {kDim});
    Norm(p + "blocks.0.norm1");
    Linear(p + "blocks.0.attn.qkv", 3 * kDim, kDim);
    Linear(p + "blocks.0.attn.proj", kDim, kDim);
    Norm(p + "blocks.0.norm2");
    Linear(p + "blocks.0.mlp.fc1", kHidden, kDim);
    Linear(p + "blocks.0.mlp.fc2", kDim, kHidden);
    Norm(p + "norm");
  }
  void Attention(const std::string& p) {
    for (const char* part : {"query", "key", "value"})
      Linear(absl::StrCat(p, "self.", part), kDim, kDim);
    Linear(p + "output.dense", kDim, kDim);
    Norm(p + "output.LayerNorm");
  }
  void Bert(const std::string& p) {
    const std::string embeddings = p + "bert.embeddings.";
    tensors[embeddings + "position_ids"] = at::arange(kPositions).unsqueeze(0);
    Add(embeddings + "word_embeddings.weight", {vocab_, kDim});
    Add(embeddings + "position_embeddings.weight", {kPositions, kDim});
    Add(embeddings + "token_type_embeddings.weight", {2, kDim});
    Norm(embeddings + "LayerNorm");
    for (int layer : {0, 1}) {
      const std::string q = absl::StrCat(p, "bert.encoder.layer.", layer, ".");
      Attention(q + "attention.");
      if (layer == 1) Attention(q + "crossattention.");
      Linear(q + "intermediate.dense", kHidden, kDim);
      Linear(q + "output.dense", kDim, kHidden);
      Norm(q + "output.LayerNorm");
    }
    Add(p + "cls.predictions.bias", {vocab_});
    Linear(p + "cls.predictions.transform.dense", kDim, kDim);
    Norm(p + "cls.predictions.transform.LayerNorm");
    Linear(p + "cls.predictions.decoder", vocab_, kDim);
    tensors[p + "cls.predictions.decoder.bias"] =
        tensors[p + "cls.predictions.bias"];
  }

  int64_t vocab_;
};

class AlbefTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string shapes = JoinPath(testing::TempDir(), "albef_shapes");
    ASSERT_TRUE(WriteShapes(shapes).ok());
    setenv("E2E_DATA", shapes.c_str(), 1);
    auto source = ReadSource(Runfile("tests/e2e/tiny.pbtxt"));
    ASSERT_TRUE(source.ok()) << source.status();
    // As ALBEF: a teacher and queues.
    LoadResult loaded = LoadExperiment(
        {*source,
         {"overlay",
          "teacher { enabled: true } objectives { name: 'itc' config { "
          "[type.googleapis.com/semvq.ItcConfig] { alpha: 0.4 queue_size: 24 } "
          "} }"}});
    const auto stages =
        ResolveStages(loaded.experiment, loaded.provenance).stages;
    tokenizer_ = *LoadWordPiece(JoinPath(shapes, "vocab.txt"));
    auto book = BuildContracts(stages[0].experiment);
    ASSERT_TRUE(book.ok()) << book.status();
    auto model = Model::Compose(stages[0].experiment, *book, tokenizer_.get());
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *model;

    path_ = JoinPath(testing::TempDir(), "albef.safetensors");
    Entry("image", "timm_vit", "visual_encoder.");
    Entry("text", "hf_bert", "text_encoder.bert.");
    Entry("fusion", "hf_bert", "text_encoder.bert.")->set_first_layer(1);
    Entry("mlm", "hf_bert_mlm", "text_encoder.");
    Entry("itc", "albef_itc", "");
    Entry("itm", "albef_itm", "");
  }

  WeightsImport* Entry(const std::string& instance, const std::string& map,
                       const std::string& from) {
    WeightsImport* entry = config_.add_weights();
    entry->set_name(instance);
    entry->set_path(path_);
    entry->set_key_map(absl::StrCat("key_maps/", map, ".textproto"));
    entry->set_from(from);
    entry->set_to(instance + ".");
    return entry;
  }

  absl::StatusOr<InitReport> Init(
      const std::map<std::string, at::Tensor>& tensors) {
    EXPECT_TRUE(WriteSafetensors(path_, {tensors.begin(), tensors.end()}).ok());
    auto resolved = ResolveInitFrom(config_, "/", {Runfile("configs")});
    if (!resolved.ok()) return resolved.status();
    return InitParameters(*resolved, "", *model_);
  }

  at::Tensor Parameter(const std::string& name) {
    return model_->named_parameters()[name];
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::shared_ptr<Model> model_;
  InitFrom config_;
  std::string path_;
};

TEST_F(AlbefTest, FillsEveryEncoderAndHead) {
  Albef albef(tokenizer_->vocab_size());
  const auto report = Init(albef.tensors);
  ASSERT_TRUE(report.ok()) << report.status();
  for (const std::string& name : report->missing) {
    EXPECT_TRUE(name == "image.mask_token" ||
                absl::StrContains(name, "itc.image_queue") ||
                absl::StrContains(name, "itc.text_queue"))
        << name;
  }
  for (const std::string& name : report->untouched) {
    for (const char* filled :
         {"image.", "text.", "fusion.", "mlm.", "itc.", "itm."})
      EXPECT_FALSE(absl::StartsWith(name, filled)) << name;
  }
  const auto& from = albef.tensors;
  const std::string layer = "text_encoder.bert.encoder.layer.1.";
  EXPECT_TRUE(at::equal(
      Parameter("fusion.layer.0.cross_attn.kv.weight"),
      at::cat({from.at(layer + "crossattention.self.key.weight"),
               from.at(layer + "crossattention.self.value.weight")})));
  EXPECT_TRUE(at::equal(
      Parameter("text.layer.0.norm2.bias"),
      from.at("text_encoder.bert.encoder.layer.0.output.LayerNorm.bias")));
  EXPECT_TRUE(at::equal(Parameter("itc.image_proj.weight"),
                        from.at("vision_proj.weight")));
  EXPECT_TRUE(at::equal(Parameter("itc.temperature"), from.at("temp")));
  EXPECT_TRUE(at::equal(Parameter("itm.head.bias"), from.at("itm_head.bias")));
  EXPECT_TRUE(
      at::equal(Parameter("mlm.decoder.weight"),
                from.at("text_encoder.cls.predictions.decoder.weight")));
}

TEST_F(AlbefTest, EveryLostTensorIsNoticed) {
  const Albef albef(tokenizer_->vocab_size());
  for (const auto& [name, tensor] : albef.tensors) {
    // Not read: the teacher's copies, the queues, indices, tied copies.
    if (absl::StrContains(name, "_m.") || absl::StrContains(name, "queue") ||
        absl::StrContains(name, "position_ids") ||
        absl::EndsWith(name, "decoder.bias"))
      continue;
    auto without = albef.tensors;
    without.erase(name);
    // The decoder's matrix is the word embeddings where it is not given.
    const bool tied = absl::EndsWith(name, "decoder.weight");
    EXPECT_EQ(Init(without).ok(), tied) << name;
  }
  auto more = albef.tensors;
  more["text_encoder.bert.encoder.layer.2.output.dense.bias"] = at::zeros({1});
  const auto report = Init(more);
  EXPECT_TRUE(
      absl::StrContains(report.status().message(),
                        "unexpected in the file (1): "
                        "text_encoder.bert.encoder.layer.2.output.dense.bias"))
      << report.status();
}

}  // namespace
}  // namespace semvq
