#include "tasks/grounding/grad_cam.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "core/forward/types.h"

namespace semvq {

absl::StatusOr<at::Tensor> GradCam(const GradCamViews& views,
                                   Forward& forward) {
  const Tokens& visual = forward.Get<Tokens>(ImageKey(views.visual, kTokens));
  const int64_t patches = visual.grid.height * visual.grid.width;
  if (patches == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tokens of \"", views.visual, "\" have no grid"));
  }
  // Encoded before gradients are on: only the fusion layers need a graph.
  forward.Get<Tokens>(TextKey(views.text, kTokens));
  c10::AutoGradMode grad(true);
  const auto& maps = forward.Get<std::vector<at::Tensor>>(
      FusedKey(views.fusion, CrossAttentionView(views.layer)));
  if (maps.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", maps.size(), " image slots, expected 1"));
  }
  const at::Tensor score =
      forward.Get<at::Tensor>(FusedKey(views.matching, kMatchLogits))
          .select(1, 1)
          .sum();
  const at::Tensor& map = maps[0];  // [T, heads, L, [CLS] + patches]
  const at::Tensor gradient =
      score.requires_grad()
          ? torch::autograd::grad({score}, {map}, {}, /*retain_graph=*/false,
                                  /*create_graph=*/false,
                                  /*allow_unused=*/true)[0]
          : at::Tensor();
  if (!gradient.defined()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", views.matching, "\" scores no tokens of \"", views.fusion,
        "\", expected an objective that reads this fusion encoder"));
  }
  c10::NoGradGuard no_grad;
  at::Tensor cam = map.detach().to(at::kDouble) *
                   gradient.to(at::kDouble).clamp_min(0) *
                   forward.batch().text_mask.unsqueeze(1).unsqueeze(-1);
  cam = cam.mean(at::IntArrayRef{1, 2});  // Over heads and tokens.
  return cam.narrow(1, cam.size(1) - patches, patches)
      .reshape({-1, visual.grid.height, visual.grid.width})
      .to(at::kCPU);
}

at::Tensor ResizeMap(const at::Tensor& map, int64_t to_height, int64_t to_width,
                     bool bicubic) {
  const at::Tensor in = map.unsqueeze(0).unsqueeze(0);
  const std::vector<int64_t> size = {to_height, to_width};
  return (bicubic ? at::upsample_bicubic2d(in, size, /*align_corners=*/false)
                  : at::upsample_bilinear2d(in, size, /*align_corners=*/false))
      .squeeze(0)
      .squeeze(0)
      .contiguous();
}

}  // namespace semvq
