#include "objectives/mim/mim.h"

#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/nn/layers.h"
#include "core/nn/transformer.h"
#include "core/objective/losses.h"
#include "core/objective/mask.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "objectives/mim/config.pb.h"

namespace semvq {
namespace {

class Mim : public Objective {
 public:
  Mim(const MimConfig& config, const PluginContext& context, int64_t dim,
      const std::vector<int64_t>& codes_per_group,
      const TransformerOptions& fusion)
      : config_(config), instance_(context.instance) {
    torch::nn::ModuleList heads;
    for (int64_t codes : codes_per_group) {
      heads_.push_back(std::make_shared<Linear>(dim, codes));
      heads->push_back(heads_.back());
    }
    register_module("heads", heads);
    if (config.predict_from() == MimConfig::FUSED) {
      fusion_ = register_module("fusion", std::make_shared<TransformerDecoder>(
                                              fusion, config.fusion_layers()));
    }
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kImageMask) return DrawMask(key.slot, forward);
    if (key.view == kMimLogits) return Logits(key, forward);
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const at::Tensor codes =
        GatherPositions(Codes(0, forward), Mask(0, forward).positions);
    const auto& logits =
        forward.Get<std::vector<at::Tensor>>(ImageKey(instance_, kMimLogits));
    const double share = 1.0 / static_cast<double>(logits.size());
    const at::Tensor counts = SharedCount(
        codes.ge(0).sum(at::IntArrayRef({0, 1})), forward.group());  // [G]
    at::Tensor loss, top1, majority, entropy;
    const auto add = [share](at::Tensor& sum, const at::Tensor& term) {
      sum = sum.defined() ? sum + term * share : term * share;
    };
    for (size_t g = 0; g < logits.size(); ++g) {
      const at::Tensor targets = codes.select(-1, static_cast<int64_t>(g));
      const at::Tensor count = counts.select(0, static_cast<int64_t>(g));
      add(loss, CrossEntropyAt(logits[g], targets, {}, 0.0, count));
      add(top1, Top1(logits[g], targets, count));
      const at::Tensor frequency = Frequency(targets, logits[g].size(-1));
      add(majority, frequency.max());
      add(entropy, -at::xlogy(frequency, frequency).sum());
    }
    ObjectiveOutput out;
    out.losses = {{"code", loss}};
    out.metrics = {
        {"top1", top1}, {"majority", majority}, {"target_entropy", entropy}};
    return out;
  }

 private:
  // Whose codes of the clean image are the targets.
  Variant TargetVariant() const {
    Variant variant;
    variant.teacher = config_.targets() == MimConfig::TEACHER;
    return variant;
  }

  // int64 [B, N, G]
  const at::Tensor& Codes(int slot, Forward& forward) {
    return forward
        .Get<QuantizedTokens>(
            ImageKey(config_.quantizer(), kQuantized, TargetVariant(), slot))
        .quantized.codes;
  }

  const ImageMask& Mask(int slot, Forward& forward) {
    return forward.Get<ImageMask>(ImageKey(instance_, kImageMask, {}, slot));
  }

  std::vector<at::Tensor> Logits(const ViewKey& key, Forward& forward) {
    Variant masked = key.variant;
    masked.image_mask = instance_;
    const Tokens& image = forward.Get<Tokens>(
        ImageKey(config_.image(), kTokens, masked, key.slot));
    at::Tensor values = image.values;
    if (fusion_ != nullptr) {
      Variant clean;
      clean.teacher = key.variant.teacher;
      const Tokens& text =
          forward.Get<Tokens>(TextKey(config_.text(), kTokens, clean));
      const at::Tensor rows = FirstTexts(forward.batch());
      CrossMemory memory;
      memory.values = text.values.index_select(0, rows);
      if (text.mask.defined()) memory.mask = text.mask.index_select(0, rows);
      values = fusion_->Forward(values, image.mask, {&memory, 1});
    }
    const at::Tensor hidden = GatherPositions(
        values, Mask(key.slot, forward).positions + (image.has_cls ? 1 : 0));
    std::vector<at::Tensor> logits;
    for (const auto& head : heads_) logits.push_back(head->Forward(hidden));
    return logits;
  }

  ImageMask DrawMask(int slot, Forward& forward) {
    c10::NoGradGuard no_grad;
    const Grid grid = forward
                          .Get<Tokens>(ImageKey(config_.image(), kTokens,
                                                TargetVariant(), slot))
                          .grid;
    if (config_.mask() == MimConfig::SAME_CODE) {
      const int64_t patches = grid.height * grid.width;
      return MaskOfPositions(
          SameCodePositions(slot, patches,
                            HiddenPatches(config_.mask_ratio(), patches),
                            forward),
          patches);
    }
    PatchMaskOptions options;
    options.ratio = config_.mask_ratio();
    options.blockwise = config_.mask() == MimConfig::BLOCKWISE;
    options.min_block = config_.min_block_patches();
    options.max_aspect = config_.max_block_aspect();
    return DrawPatchMask(forward.batch(), grid, options, forward.seed(), slot);
  }

  // The draws are made on the host, the choice that depends on the codes on the
  // device: a patch's score is a random number, plus 1 with the chosen code.
  at::Tensor SameCodePositions(int slot, int64_t patches, int64_t count,
                               Forward& forward) {
    const at::Tensor codes = Codes(slot, forward).select(-1, 0);
    TORCH_CHECK(codes.size(1) == patches, "mim \"", instance_,
                "\": ", config_.quantizer(), " has ", codes.size(1),
                " codes an image, ", config_.image(), " has ", patches,
                " patches; the quantizer must read the same encoder");
    const std::vector<int64_t>& numbers = forward.batch().sample_numbers;
    const int64_t images = static_cast<int64_t>(numbers.size());
    at::Tensor anchor = at::empty({images, 1}, at::kLong);
    at::Tensor score = at::empty({images, patches}, at::kDouble);
    int64_t* anchor_out = anchor.data_ptr<int64_t>();
    double* score_out = score.data_ptr<double>();
    for (int64_t number : numbers) {
      RandomStream random = PatchMaskStream(forward.seed(), number, slot);
      *anchor_out++ = random.Below(patches);
      for (int64_t i = 0; i < patches; ++i) *score_out++ = random.Uniform();
    }
    const at::Tensor same =
        codes.eq(codes.gather(1, anchor.to(codes.device(), true)));
    const at::Tensor chosen =
        std::get<1>((score.to(codes.device(), true) + same).topk(count, -1));
    return std::get<0>(chosen.sort(-1));
  }

  // Share of each code among the targets, float [codes].
  static at::Tensor Frequency(const at::Tensor& targets, int64_t codes) {
    const at::Tensor flat = targets.reshape({-1});
    const at::Tensor valid = flat.ge(0).to(at::kFloat);
    return at::zeros({codes}, valid.options())
               .index_add_(0, flat.clamp_min(0), valid) /
           valid.sum().clamp_min(1);
  }

  const MimConfig config_;
  const std::string instance_;
  std::vector<std::shared_ptr<Linear>> heads_;
  std::shared_ptr<TransformerDecoder> fusion_;
};

}  // namespace

absl::Status ValidateMim(const MimConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("image", config.image());
  errors.RequireInstance("quantizer", config.quantizer());
  errors.Require(config.mask_ratio() > 0 && config.mask_ratio() < 1,
                 "mask_ratio", config.mask_ratio(),
                 "a share between 0 and 1, both excluded");
  errors.Require(config.min_block_patches() > 0, "min_block_patches",
                 config.min_block_patches(), "a positive number");
  errors.Require(config.max_block_aspect() >= 1, "max_block_aspect",
                 config.max_block_aspect(), "at least 1");
  if (config.predict_from() == MimConfig::FUSED) {
    errors.RequireInstance("text", config.text());
    errors.Require(config.fusion_layers() > 0 && config.fusion_layers() <= 1000,
                   "fusion_layers", config.fusion_layers(), "1 to 1000");
    errors.Require(config.fusion_heads() >= 0, "fusion_heads",
                   config.fusion_heads(), "0 or more");
  }
  return errors.status();
}

Contract MimContract(const std::string& /*instance*/, const MimConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kImageMask, 0}, {kMimLogits, 0}};
  contract.needs = {
      {"image", config.image(), kTokens, 0, false, "its patches are masked"},
      {"quantizer", config.quantizer(), kQuantized, 0, true,
       "it predicts codes"}};
  contract.batch_keys = {"image"};
  if (config.predict_from() == MimConfig::FUSED) {
    contract.needs.push_back({"text", config.text(), kTokens, 0, false,
                              "it predicts from image and text"});
    contract.batch_keys.push_back("text");
  }
  contract.needs_teacher = config.targets() == MimConfig::TEACHER;
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeMim(
    const MimConfig& config, const PluginContext& context) {
  const auto error = [&context](auto... parts) {
    return absl::InvalidArgumentError(
        absl::StrCat("mim \"", context.instance, "\": ", parts...));
  };
  const int64_t dim = context.book->Dim(config.image(), kTokens);
  if (dim <= 0) {
    return error("the dimension of ", config.image(),
                 "/tokens is unknown; check image");
  }
  const Contract* quantizer = context.book->Find(config.quantizer());
  if (quantizer == nullptr || quantizer->codes.codes_per_group.empty()) {
    return error(config.quantizer(),
                 " has no codes to predict; name a quantizer with codes");
  }
  TransformerOptions fusion;
  if (config.predict_from() == MimConfig::FUSED) {
    fusion.dim = dim;
    fusion.heads = config.fusion_heads() > 0 ? config.fusion_heads()
                                             : std::max<int64_t>(1, dim / 64);
    fusion.cross_dim = context.book->Dim(config.text(), kTokens);
    if (fusion.cross_dim <= 0) {
      return error("the dimension of ", config.text(),
                   "/tokens is unknown; check text");
    }
    if (dim % fusion.heads != 0) {
      return error(fusion.heads, " heads do not divide the dimension ", dim,
                   "; set fusion_heads");
    }
  }
  return std::make_shared<Mim>(config, context, dim,
                               quantizer->codes.codes_per_group, fusion);
}

}  // namespace semvq
