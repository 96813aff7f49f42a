// The views that come with every encoder, quantizer and the switch
// `visual_tokens`.
#ifndef SEMVQ_CORE_FORWARD_PROVIDERS_H_
#define SEMVQ_CORE_FORWARD_PROVIDERS_H_

#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "core/forward/forward.h"
#include "core/plugin/encoder.h"
#include "core/plugin/quantizer.h"
#include "protos/experiment.pb.h"

namespace semvq {

class Linear;

// kTokens of one image slot, with the patches of the variant's image mask
// hidden.
class ImageEncoderViews : public ViewProvider {
 public:
  // `blank`: every image is encoded as one of the mean colour.
  explicit ImageEncoderViews(std::shared_ptr<ImageEncoder> encoder,
                             bool blank = false)
      : encoder_(std::move(encoder)), blank_(blank) {}
  std::any ComputeView(const ViewKey& key, Forward& forward) override;

 private:
  std::shared_ptr<ImageEncoder> encoder_;
  bool blank_;
};

// kTokens of all texts, with the tokens of the variant's text mask hidden.
class TextEncoderViews : public ViewProvider {
 public:
  // `blank`: every text is encoded as [CLS] alone, the other positions masked.
  explicit TextEncoderViews(std::shared_ptr<TextEncoder> encoder,
                            bool blank = false)
      : encoder_(std::move(encoder)), blank_(blank) {}
  std::any ComputeView(const ViewKey& key, Forward& forward) override;

 private:
  std::shared_ptr<TextEncoder> encoder_;
  bool blank_;
};

// kFused: the pairing's texts attend to the visual tokens of their images.
// CrossAttentionView(layer): the maps, with which the tokens come; they become
// kFused unless that was asked for before.
class FusionEncoderViews : public ViewProvider {
 public:
  FusionEncoderViews(std::shared_ptr<FusionEncoder> encoder, std::string text,
                     std::string visual)
      : encoder_(std::move(encoder)),
        text_(std::move(text)),
        visual_(std::move(visual)) {}
  std::any ComputeView(const ViewKey& key, Forward& forward) override;

 private:
  std::shared_ptr<FusionEncoder> encoder_;
  std::string text_, visual_;
};

// kQuantized: projects an image encoder's patch tokens to the codebook's
// dimension, quantises them and projects back. The clean view of a training
// batch gathers the codebook's statistics; every other view only assigns.
class QuantizerViews : public torch::nn::Module, public ViewProvider {
 public:
  // `encoder_dim`: of the tokens of `config.input()`.
  QuantizerViews(std::shared_ptr<Quantizer> quantizer,
                 const QuantizerConfig& config, int64_t encoder_dim);
  std::any ComputeView(const ViewKey& key, Forward& forward) override;
  Quantizer& quantizer() { return *quantizer_; }

 private:
  std::shared_ptr<Quantizer> quantizer_;
  std::shared_ptr<Linear> project_in_,
      project_out_;  // Null without projection.
  std::string input_;
  bool l2_normalize_, frozen_;
};

// kTokens of the instance `visual`: quantised, continuous or gated (METHOD: how
// language reaches the codes). [CLS] is passed on as it is.
class VisualTokensViews : public torch::nn::Module, public ViewProvider {
 public:
  VisualTokensViews(const VisualTokens& config, int64_t encoder_dim);
  std::any ComputeView(const ViewKey& key, Forward& forward) override;

 private:
  VisualTokens config_;
  std::shared_ptr<Linear>
      gate_;  // GATED only: [feature, vector] -> channel gate.
};

// Token [CLS] removed: [B, N, D].
at::Tensor PatchTokens(const Tokens& tokens);

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_PROVIDERS_H_
