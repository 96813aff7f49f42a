// Names and keys of views. A view is one value computed at most once per batch;
// anyone may ask for it.
#ifndef SEMVQ_CORE_FORWARD_VIEWS_H_
#define SEMVQ_CORE_FORWARD_VIEWS_H_

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>

namespace semvq {

// Which parameters and which corruption of the batch a view is computed from.
struct Variant {
  bool teacher = false;  // EMA parameters, no gradient.
  std::string
      image_mask;         // Instance that provides the ImageMask; empty: clean.
  std::string text_mask;  // Instance that provides the TextMask; empty: clean.

  friend bool operator<(const Variant& a, const Variant& b) {
    return std::tie(a.teacher, a.image_mask, a.text_mask) <
           std::tie(b.teacher, b.image_mask, b.text_mask);
  }
};

// All image slots together (views of a fusion encoder).
inline constexpr int kAllSlots = -1;

struct ViewKey {
  std::string instance;  // The provider's name in the experiment.
  std::string view;      // One of the names below, or a plugin's own.
  Variant variant;
  int slot = 0;         // Image slot.
  std::string pairing;  // Instance that provides the Pairing; empty: every text
                        // with its own image.

  friend bool operator<(const ViewKey& a, const ViewKey& b) {
    return std::tie(a.instance, a.view, a.variant, a.slot, a.pairing) <
           std::tie(b.instance, b.view, b.variant, b.slot, b.pairing);
  }
};

// "fusion/fused[teacher, text_mask=mlm, pairing=itm, slot=1]"
std::string ToString(const ViewKey& key);

// View names with the C++ type of their value. Plugins may add their own.
inline constexpr char kTokens[] = "tokens";  // Tokens: encoders, `visual`
inline constexpr char kQuantized[] =
    "quantized";                           // QuantizedTokens: quantizers
inline constexpr char kFused[] = "fused";  // Tokens [P, L, D]: fusion encoders
// std::vector<at::Tensor>, one an image slot: [P, heads, L, N], what the texts'
// queries of the layer <layer> (0 is the first) attend to: fusion encoders, by
// the name CrossAttentionView(layer). It costs nothing unless asked for. Asked
// for before the same key's kFused it is in the graph of that, so that a score
// of any head has a gradient with respect to it (Grad-CAM).
inline constexpr char kCrossAttention[] = "cross_attention/";  // and <layer>
inline constexpr char kImageMask[] = "image_mask";             // ImageMask: mim
inline constexpr char kTextMask[] = "text_mask";               // TextMask: mlm
inline constexpr char kPairing[] =
    "pairing";  // Pairing: itm (positives, then hard negatives)
inline constexpr char kImageEmbedding[] =
    "image_embedding";  // at::Tensor [B, d], L2-normalised: itc
inline constexpr char kTextEmbedding[] =
    "text_embedding";  // at::Tensor [T, d], L2-normalised: itc
inline constexpr char kSimilarity[] =
    "similarity";  // at::Tensor [B, T], cosine / temperature: itc
inline constexpr char kMatchLogits[] =
    "match_logits";  // at::Tensor [P, 2], class 1 = match: itm
inline constexpr char kMlmLogits[] =
    "mlm_logits";  // at::Tensor [T, M, V], at the masked positions: mlm
inline constexpr char kMimLogits[] =
    "mim_logits";  // std::vector<at::Tensor> [B, M, K_g], a group each: mim
inline constexpr char kReconstruction[] =
    "reconstruction";  // at::Tensor [B, 3, H, W], normalised pixels
inline constexpr char kAnswerLogits[] =
    "answer_logits";  // at::Tensor [T, A]: vqa

inline std::string CrossAttentionView(int64_t layer) {
  return kCrossAttention + std::to_string(layer);
}

// Name of the instance that the switch `visual_tokens` provides.
inline constexpr char kVisual[] = "visual";

// Keys in canonical form: what a view does not depend on is left out, so that
// equal work has an equal key.
inline ViewKey ImageKey(std::string instance, std::string view,
                        Variant variant = {}, int slot = 0) {
  variant.text_mask.clear();
  return {std::move(instance), std::move(view), std::move(variant), slot, ""};
}
inline ViewKey TextKey(std::string instance, std::string view,
                       Variant variant = {}) {
  variant.image_mask.clear();
  return {std::move(instance), std::move(view), std::move(variant), 0, ""};
}
inline ViewKey FusedKey(std::string instance, std::string view,
                        Variant variant = {}, std::string pairing = "") {
  return {std::move(instance), std::move(view), std::move(variant), kAllSlots,
          std::move(pairing)};
}

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_VIEWS_H_
