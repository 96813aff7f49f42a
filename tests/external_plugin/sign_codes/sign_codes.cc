#include <torch/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "core/plugin/registry.h"
#include "sign_codes/sign_codes.pb.h"

namespace mine {
namespace {

class SignCodes : public semvq::Quantizer {
 public:
  SignCodes(std::string instance, int64_t dim, double scale)
      : instance_(std::move(instance)), dim_(dim), scale_(scale) {}

  semvq::Quantized Quantize(const at::Tensor& features,
                            const semvq::QuantizeContext& context) override {
    TORCH_CHECK(features.dim() == 3 && features.size(2) == dim_, "quantizer ",
                instance_, ": expected features [B, N, ", dim_, "], got ",
                features.sizes());
    semvq::Quantized out;
    out.codes = features.detach().ge(0).to(at::kLong);
    at::Tensor values = Vectors(out.codes, features.scalar_type());
    if (context.valid.defined()) {
      const at::Tensor valid = context.valid.unsqueeze(2);
      out.codes = at::where(valid, out.codes, at::full_like(out.codes, -1));
      values = at::where(valid, values, at::zeros_like(values));
    }
    // The difference is exactly 0; features that are no numbers pass nothing.
    const at::Tensor path = at::where(features.detach().isfinite(), features,
                                      at::zeros_like(features));
    out.vectors = values + (path - path.detach());
    return out;
  }

  at::Tensor Lookup(const at::Tensor& codes) override {
    TORCH_CHECK(codes.size(-1) == dim_ && codes.ge(-1).all().item<bool>() &&
                    codes.lt(2).all().item<bool>(),
                "quantizer ", instance_, ": expected codes 0 or 1 in ", dim_,
                " groups");
    return Vectors(codes, at::kFloat);
  }

  semvq::CodebookInfo info() const override {
    semvq::CodebookInfo info;
    info.codes_per_group.assign(dim_, 2);
    info.dim = dim_;
    return info;
  }

 private:
  at::Tensor Vectors(const at::Tensor& codes, at::ScalarType type) const {
    return (codes.to(type) * 2 - 1) * scale_;
  }

  const std::string instance_;
  const int64_t dim_;
  const double scale_;
};

absl::Status Validate(const SignCodesConfig& config) {
  if (config.scale() > 0 && config.scale() <= 1e6) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("scale: got ", config.scale(),
                   ", expected a number above 0 and at most 1e6"));
}

int64_t Dim(const std::string& instance, const semvq::ContractBook& book) {
  return book.Dim(instance, semvq::kQuantized);
}

semvq::Contract DeclareContract(const std::string& instance,
                                const SignCodesConfig& /*config*/,
                                const semvq::ContractBook& book) {
  semvq::Contract contract;
  contract.codes.codes_per_group.assign(Dim(instance, book), 2);
  return contract;
}

absl::StatusOr<std::shared_ptr<semvq::Quantizer>> Make(
    const SignCodesConfig& config, const semvq::PluginContext& context) {
  const int64_t dim =
      context.book == nullptr ? 0 : Dim(context.instance, *context.book);
  if (dim < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the dimension of quantizer \"", context.instance, "\" is not known"));
  }
  return std::shared_ptr<semvq::Quantizer>(
      std::make_shared<SignCodes>(context.instance, dim, config.scale()));
}

}  // namespace

using semvq::Quantizer;
SEMVQ_REGISTER(Quantizer, SignCodesConfig, Make, Validate, DeclareContract);

}  // namespace mine
