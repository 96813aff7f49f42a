#include "encoders/cross_fusion/cross_fusion.h"

#include <torch/types.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/nn/transformer.h"
#include "core/plugin/encoder.h"
#include "core/plugin/field_errors.h"

namespace semvq {
namespace {

// So many are built one by one; a typing error must not take all memory.
constexpr int32_t kMaxLayers = 1000;
constexpr int32_t kMaxSlotCopies = 16;

// Keys and values need no gathering when each image's texts lie side by side
// and are equally many. So they are of one image alone (retrieval reranks image
// by image); else only on a CPU can the index be looked at without a wait.
bool InEqualRuns(const at::Tensor& index, int64_t rows) {
  if (rows == 1) return true;
  if (!index.is_cpu() || rows == 0 || index.numel() % rows != 0) return false;
  return at::equal(index, at::arange(index.numel(), index.options())
                              .floor_divide(index.numel() / rows));
}

class CrossFusion : public FusionEncoder {
 public:
  CrossFusion(const CrossFusionConfig& config, int64_t dim, int64_t visual_dim)
      : dim_(dim), visual_dim_(visual_dim) {
    TransformerOptions options;
    options.dim = dim;
    options.heads = config.heads();
    options.hidden = config.intermediate();
    options.cross_dim = visual_dim;
    options.pre_norm = false;
    options.eps = config.layer_norm_eps();
    options.dropout = config.dropout();
    options.attention_dropout = config.attention_dropout();
    options.recompute = config.activation_checkpointing();
    for (int32_t slot = 0; slot < config.slot_copies(); ++slot) {
      copies_.push_back(register_module(
          slot == 0 ? "layer" : absl::StrCat("layer_slot", slot),
          std::make_shared<BlockStack>(
              options, config.layers(),
              slot == 0 ? nullptr : copies_[0].get())));
    }
  }

  FusedWithMaps FuseWithMaps(const Tokens& text,
                             absl::Span<const Tokens> images,
                             const at::Tensor& image_index,
                             int64_t layer) override {
    const int64_t depth = copies_[0]->depth();
    TORCH_CHECK(layer >= 0 && layer < depth, "cross_fusion: no layer ", layer,
                " among ", depth);
    std::vector<AttentionTap*> taps;
    for (const auto& copy : copies_)
      taps.push_back(&copy->block(layer).cross_attn()->tap());
    // Also when Fuse throws.
    const auto off = absl::MakeCleanup([&taps] {
      for (AttentionTap* tap : taps) *tap = AttentionTap();
    });
    for (AttentionTap* tap : taps) tap->enabled = true;
    FusedWithMaps out;
    out.tokens = Fuse(text, images, image_index);
    for (AttentionTap* tap : taps)
      out.maps.insert(out.maps.end(), tap->maps.begin(), tap->maps.end());
    return out;
  }

  Tokens Fuse(const Tokens& text, absl::Span<const Tokens> images,
              const at::Tensor& image_index) override {
    TORCH_CHECK(!images.empty(), "cross_fusion: no image slot");
    TORCH_CHECK(copies_.size() == 1 || copies_.size() == images.size(),
                "cross_fusion: slot_copies is ", copies_.size(), ", but ",
                images.size(),
                " images came with each text; set slot_copies "
                "to their number, or to 1, which reads any number");
    TORCH_CHECK(text.values.dim() == 3 && text.values.size(2) == dim_,
                "cross_fusion: text tokens must be [P, L, ", dim_, "], got ",
                text.values.sizes());
    std::vector<CrossMemory> memories;
    for (const Tokens& image : images) {
      TORCH_CHECK(
          image.values.dim() == 3 && image.values.size(2) == visual_dim_,
          "cross_fusion: visual tokens must be [B, N, ", visual_dim_, "], got ",
          image.values.sizes());
      CrossMemory memory{image.values, image.mask, image_index};
      if (image_index.defined() &&
          InEqualRuns(image_index, image.values.size(0)))
        memory.index = at::Tensor();
      memories.push_back(memory);
    }
    Tokens fused = text;
    if (copies_.size() == 1) {
      fused.values = copies_[0]->Forward(text.values, text.mask, memories);
      return fused;
    }
    for (int64_t i = 0; i < copies_[0]->depth(); ++i) {
      for (size_t slot = 0; slot < copies_.size(); ++slot) {
        fused.values = copies_[slot]->ForwardBlock(
            i, fused.values, text.mask,
            absl::MakeConstSpan(memories).subspan(slot, 1));
      }
    }
    return fused;
  }

  int64_t dim() const override { return dim_; }

 private:
  int64_t dim_, visual_dim_;
  // One a slot; the first has the keys and values of all.
  std::vector<std::shared_ptr<BlockStack>> copies_;
};

}  // namespace

absl::Status ValidateCrossFusion(const CrossFusionConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("text", config.text());
  errors.RequireInstance("visual", config.visual());
  errors.RequirePositive("layers", config.layers());
  errors.Require(config.layers() <= kMaxLayers, "layers", config.layers(),
                 absl::StrCat("at most ", kMaxLayers));
  errors.Require(
      config.slot_copies() >= 1 && config.slot_copies() <= kMaxSlotCopies,
      "slot_copies", config.slot_copies(),
      absl::StrCat("1 to ", kMaxSlotCopies));
  errors.RequirePositive("heads", config.heads());
  errors.RequireNotNegative("dim", config.dim());
  errors.RequireDivisor("heads", config.heads(), "dim", config.dim());
  errors.RequireNotNegative("intermediate", config.intermediate());
  errors.RequirePositive("layer_norm_eps", config.layer_norm_eps());
  errors.RequireProbability("dropout", config.dropout());
  errors.RequireProbability("attention_dropout", config.attention_dropout());
  return errors.status();
}

Contract CrossFusionContract(const std::string& /*instance*/,
                             const CrossFusionConfig& config,
                             const ContractBook& book) {
  Contract contract;
  NeededView text;
  text.field = "text";
  text.instance = config.text();
  text.view = kTokens;
  text.dim = config.dim();
  if (config.dim() > 0) {
    text.why =
        "the fusion layers work in the text's dimension; leave dim unset to "
        "take it from there";
  }
  NeededView visual;
  visual.field = "visual";
  visual.instance = config.visual();
  visual.view = kTokens;
  contract.needs = {text, visual};
  contract.provides = {{kFused, config.dim() > 0
                                    ? config.dim()
                                    : book.Dim(config.text(), kTokens)}};
  for (int64_t i = 0; i < std::min(config.layers(), kMaxLayers); ++i)
    contract.provides.push_back({CrossAttentionView(i)});
  return contract;
}

absl::StatusOr<std::shared_ptr<FusionEncoder>> MakeCrossFusion(
    const CrossFusionConfig& config, const PluginContext& context) {
  if (absl::Status status = ValidateCrossFusion(config); !status.ok())
    return status;
  const int64_t text_dim =
      context.book == nullptr ? 0 : context.book->Dim(config.text(), kTokens);
  const int64_t visual_dim =
      context.book == nullptr ? 0 : context.book->Dim(config.visual(), kTokens);
  if (text_dim <= 0 || visual_dim <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fusion ", context.instance, ": no tokens of known dimension from ",
        text_dim <= 0 ? config.text() : config.visual(),
        "; name an instance that provides them"));
  }
  if (config.dim() > 0 && config.dim() != text_dim) {
    return absl::InvalidArgumentError(
        absl::StrCat("fusion ", context.instance, ": dim ", config.dim(),
                     " is not the text's, ", text_dim, "; leave dim unset"));
  }
  if (text_dim % config.heads() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("fusion ", context.instance, ": ", config.heads(),
                     " heads do not divide the text's dim ", text_dim));
  }
  return std::make_shared<CrossFusion>(config, text_dim, visual_dim);
}

}  // namespace semvq
