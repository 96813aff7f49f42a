#include "core/forward/providers.h"

#include <torch/types.h>

#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "core/distributed/gather_rows.h"
#include "core/forward/rank_views.h"
#include "core/nn/layers.h"
#include "core/random/stream.h"

namespace semvq {

at::Tensor PatchTokens(const Tokens& tokens) {
  return tokens.has_cls ? tokens.values.narrow(1, 1, tokens.values.size(1) - 1)
                        : tokens.values;
}

std::any ImageEncoderViews::ComputeView(const ViewKey& key, Forward& forward) {
  TORCH_CHECK(key.view == kTokens, "image encoder ", key.instance,
              " provides no view ", key.view);
  ImageInput input;
  input.pixels = forward.batch().images.select(1, key.slot);
  if (blank_) input.pixels = at::zeros_like(input.pixels);
  if (!key.variant.image_mask.empty()) {
    input.patch_mask = forward
                           .Get<ImageMask>(ImageKey(key.variant.image_mask,
                                                    kImageMask, {}, key.slot))
                           .mask;
  }
  return encoder_->Encode(input);
}

std::any TextEncoderViews::ComputeView(const ViewKey& key, Forward& forward) {
  TORCH_CHECK(key.view == kTokens, "text encoder ", key.instance,
              " provides no view ", key.view);
  TextInput input{forward.batch().text_ids, forward.batch().text_mask};
  if (!key.variant.text_mask.empty()) {
    input.ids =
        forward.Get<TextMask>(TextKey(key.variant.text_mask, kTextMask)).ids;
  }
  if (blank_) {
    // The words themselves are gone too, not only masked.
    input.ids = input.ids.narrow(1, 0, 1).expand_as(input.ids).contiguous();
    input.mask = at::zeros_like(input.mask);
    input.mask.narrow(1, 0, 1).fill_(true);
  }
  return encoder_->Encode(input);
}

namespace {

// With those rows of other ranks' that a Pairing needs, if any.
Tokens WithOthers(Tokens tokens, const at::Tensor& others,
                  Communicator* group) {
  if (!others.defined()) return tokens;
  tokens.values =
      at::cat({tokens.values, FetchRows(tokens.values, others, group)});
  if (tokens.mask.defined()) {
    tokens.mask = at::cat({tokens.mask, FetchRows(tokens.mask, others, group)});
  }
  return tokens;
}

}  // namespace

std::any FusionEncoderViews::ComputeView(const ViewKey& key, Forward& forward) {
  int64_t layer = -1;  // Of the attention maps; -1: the tokens alone.
  absl::string_view suffix = key.view;
  TORCH_CHECK(
      key.view == kFused || (absl::ConsumePrefix(&suffix, kCrossAttention) &&
                             absl::SimpleAtoi(suffix, &layer) && layer >= 0),
      "fusion encoder ", key.instance, " provides no view ", key.view);
  const Batch& batch = forward.batch();
  Tokens text = forward.Get<Tokens>(TextKey(text_, kTokens, key.variant));
  at::Tensor image_index = batch.text_to_image;
  std::vector<at::Tensor> chosen;  // Of Pairing::slots.
  OtherRows others;
  if (!key.pairing.empty()) {
    Variant clean;
    clean.teacher = key.variant.teacher;
    const Pairing& pairing =
        forward.Get<Pairing>({key.pairing, kPairing, clean, 0, ""});
    const ViewKey others_key = {key.pairing, kOtherRows, clean, 0, ""};
    if (forward.Has(others_key)) others = forward.Get<OtherRows>(others_key);
    text = WithOthers(text, others.texts, forward.group());
    text.values = text.values.index_select(0, pairing.text_index);
    if (text.mask.defined())
      text.mask = text.mask.index_select(0, pairing.text_index);
    image_index = pairing.image_index;
    chosen = pairing.slots;
  }
  std::vector<Tokens> images;
  const auto slots = static_cast<int64_t>(chosen.empty() ? batch.images.size(1)
                                                         : chosen.size());
  for (int64_t slot = 0; slot < slots; ++slot) {
    if (key.slot != kAllSlots && key.slot != slot) continue;
    images.push_back(
        WithOthers(forward.Get<Tokens>(
                       ImageKey(visual_, kTokens, key.variant,
                                chosen.empty() ? static_cast<int>(slot) : 0)),
                   others.images, forward.group()));
    if (chosen.empty()) continue;
    Tokens& image = images.back();
    image.values = image.values.index_select(0, chosen[slot]);
    if (image.mask.defined())
      image.mask = image.mask.index_select(0, chosen[slot]);
    image_index = at::Tensor();
  }
  if (layer < 0) return encoder_->Fuse(text, images, image_index);
  FusionEncoder::FusedWithMaps fused =
      encoder_->FuseWithMaps(text, images, image_index, layer);
  ViewKey tokens = key;
  tokens.view = kFused;
  if (!forward.Has(tokens)) forward.Set(tokens, std::move(fused.tokens));
  return std::move(fused.maps);
}

QuantizerViews::QuantizerViews(std::shared_ptr<Quantizer> quantizer,
                               const QuantizerConfig& config,
                               int64_t encoder_dim)
    : quantizer_(std::move(quantizer)),
      input_(config.input()),
      l2_normalize_(config.l2_normalize()),
      frozen_(config.frozen()) {
  register_module("quantizer", quantizer_);
  if (frozen_) {
    for (at::Tensor& parameter : quantizer_->parameters())
      parameter.requires_grad_(false);
  }
  if (config.dim() > 0 && config.dim() != encoder_dim) {
    project_in_ = register_module(
        "project_in", std::make_shared<Linear>(encoder_dim, config.dim()));
    project_out_ = register_module(
        "project_out", std::make_shared<Linear>(config.dim(), encoder_dim));
  }
}

std::any QuantizerViews::ComputeView(const ViewKey& key, Forward& forward) {
  TORCH_CHECK(key.view == kQuantized, "quantizer ", key.instance,
              " provides no view ", key.view);
  const Tokens& tokens =
      forward.Get<Tokens>(ImageKey(input_, kTokens, key.variant, key.slot));
  QuantizedTokens out;
  out.features = PatchTokens(tokens);
  if (project_in_ != nullptr) out.features = project_in_->Forward(out.features);
  if (l2_normalize_)
    out.features =
        at::div(out.features, out.features.norm(2, -1, true).clamp_min(1e-12));

  QuantizeContext context;
  const bool clean_student =
      !key.variant.teacher && key.variant.image_mask.empty();
  context.mode = forward.training() && clean_student
                     ? QuantizeMode::kTrain
                     : QuantizeMode::kAssignOnly;
  if (tokens.mask.defined()) {
    context.valid = tokens.has_cls
                        ? tokens.mask.narrow(1, 1, tokens.mask.size(1) - 1)
                        : tokens.mask;
  }
  context.seed = forward.seed();
  context.step = forward.step();
  context.frozen = frozen_;
  context.group = forward.group();
  for (int64_t number : forward.batch().sample_numbers) {
    context.draw_keys.push_back(
        Mix64(Mix64(number) ^ static_cast<uint64_t>(key.slot)));
  }
  out.quantized = quantizer_->Quantize(out.features, context);
  out.tokens = project_out_ != nullptr
                   ? project_out_->Forward(out.quantized.vectors)
                   : out.quantized.vectors;
  return out;
}

VisualTokensViews::VisualTokensViews(const VisualTokens& config,
                                     int64_t encoder_dim)
    : config_(config) {
  if (config.mode() == VisualTokens::GATED) {
    gate_ = register_module(
        "gate", std::make_shared<Linear>(2 * encoder_dim, encoder_dim));
  }
}

std::any VisualTokensViews::ComputeView(const ViewKey& key, Forward& forward) {
  TORCH_CHECK(key.view == kTokens, "the visual tokens are no view ", key.view);
  const Tokens& tokens = forward.Get<Tokens>(
      ImageKey(config_.encoder(), kTokens, key.variant, key.slot));
  if (config_.mode() == VisualTokens::CONTINUOUS) return tokens;

  at::Tensor patches =
      forward
          .Get<QuantizedTokens>(
              ImageKey(config_.quantizer(), kQuantized, key.variant, key.slot))
          .tokens;
  if (config_.mode() == VisualTokens::GATED) {
    const at::Tensor features = PatchTokens(tokens);
    const at::Tensor gate =
        at::sigmoid(gate_->Forward(at::cat({features, patches}, -1)));
    patches = at::lerp(features, patches.to(features.scalar_type()),
                       gate.to(features.scalar_type()));
  }
  Tokens visual = tokens;
  visual.values = tokens.has_cls
                      ? at::cat({tokens.values.narrow(1, 0, 1),
                                 patches.to(tokens.values.scalar_type())},
                                1)
                      : patches;
  return visual;
}

}  // namespace semvq
