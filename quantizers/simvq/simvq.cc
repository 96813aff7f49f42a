#include "quantizers/simvq/simvq.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

class SimVq : public CodebookQuantizer {
 public:
  explicit SimVq(CodebookSpec spec) : CodebookQuantizer(std::move(spec)) {
    frozen_ = register_buffer("frozen", RandomCodes());
    transform_ = register_parameter("transform", RandomTransform());
  }

 private:
  at::Tensor Codes() const override {
    const at::Tensor codes = at::matmul(frozen_, transform_.t());
    return spec().metric == Metric::kCosine ? UnitVectors(codes) : codes;
  }

  NamedTensors Losses(const Coded& coded) const override {
    return {
        {"codebook", MeanSquare(coded, coded.rows.z.detach(), coded.vectors)},
        {"commitment", coded.error / static_cast<double>(spec().dim)}};
  }

  void Start(const InitialCodes& initial) override {
    frozen_.copy_(initial.codes);
    transform_.copy_(at::eye(spec().dim, transform_.options()));
  }

  void Renew(const at::Tensor& /*revived*/,
             const at::Tensor& /*fresh*/) override {}

  // Uniform within 1 / sqrt(D), as linear layers start.
  at::Tensor RandomTransform() const {
    at::Generator generator = at::detail::createCPUGenerator(
        StreamKey(spec().seed, absl::StrCat(spec().instance, "/simvq/map")));
    const int64_t dim = spec().dim;
    return (at::rand({dim, dim}, generator) * 2 - 1) / std::sqrt(dim);
  }

  at::Tensor frozen_, transform_;
};

}  // namespace

absl::Status ValidateSimVq(const SimVqConfig& config) {
  CodebookUse use;
  use.revival = false;
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), use, &errors);
  return errors.status();
}

Contract SimVqContract(const std::string& /*instance*/,
                       const SimVqConfig& config,
                       const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeSimVq(
    const SimVqConfig& config, const PluginContext& context) {
  auto spec =
      MakeCodebookSpec("simvq", config.num_codes(), config.codebook(), context);
  if (!spec.ok()) return spec.status();
  spec->options.set_revive_after(0);
  spec->options.set_reservoir(1);
  return std::make_shared<SimVq>(*std::move(spec));
}

}  // namespace semvq
