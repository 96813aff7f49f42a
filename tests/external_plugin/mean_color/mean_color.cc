#include <torch/types.h>

#include <cmath>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/forward/forward.h"
#include "core/plugin/objective.h"
#include "core/plugin/registry.h"
#include "mean_color/mean_color.pb.h"

namespace mine {
namespace {

constexpr char kMeanColor[] = "mean_color";  // at::Tensor [B, 3]

class MeanColor : public semvq::Objective {
 public:
  MeanColor(std::string instance, std::string image, int64_t dim)
      : instance_(std::move(instance)), image_(std::move(image)) {
    weight_ = register_parameter("weight",
                                 at::randn({3, dim}) / std::sqrt(double(dim)));
    bias_ = register_parameter("bias", at::zeros({3}));
  }

  // Anyone may ask for the prediction, of any variant and slot.
  std::any ComputeView(const semvq::ViewKey& key,
                       semvq::Forward& forward) override {
    if (key.view != kMeanColor) return Objective::ComputeView(key, forward);
    const semvq::Tokens& tokens = forward.Get<semvq::Tokens>(
        semvq::ImageKey(image_, semvq::kTokens, key.variant, key.slot));
    return at::linear(tokens.values.mean(1), weight_, bias_);
  }

  semvq::ObjectiveOutput Compute(semvq::Forward& forward) override {
    const at::Tensor& predicted =
        forward.Get<at::Tensor>(semvq::ImageKey(instance_, kMeanColor));
    const at::Tensor target =
        forward.batch().images.select(1, 0).mean({2, 3}).to(
            predicted.scalar_type());
    semvq::ObjectiveOutput out;
    out.losses = {{"color", at::mse_loss(predicted, target)}};
    return out;
  }

 private:
  const std::string instance_, image_;
  at::Tensor weight_, bias_;
};

absl::Status Validate(const MeanColorConfig& config) {
  if (!config.image().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "image: got an empty name, expected an image encoder");
}

semvq::Contract DeclareContract(const std::string& /*instance*/,
                                const MeanColorConfig& config,
                                const semvq::ContractBook& /*book*/) {
  semvq::Contract contract;
  contract.provides = {{kMeanColor, 3}};
  contract.needs = {{"image", config.image(), semvq::kTokens}};
  contract.batch_keys = {"image"};
  return contract;
}

absl::StatusOr<std::shared_ptr<semvq::Objective>> Make(
    const MeanColorConfig& config, const semvq::PluginContext& context) {
  const int64_t dim = context.book == nullptr
                          ? 0
                          : context.book->Dim(config.image(), semvq::kTokens);
  if (dim < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "image: the dimension of \"", config.image(), "\" is not known"));
  }
  return std::shared_ptr<semvq::Objective>(
      std::make_shared<MeanColor>(context.instance, config.image(), dim));
}

}  // namespace

using semvq::Objective;
SEMVQ_REGISTER(Objective, MeanColorConfig, Make, Validate, DeclareContract);

}  // namespace mine
