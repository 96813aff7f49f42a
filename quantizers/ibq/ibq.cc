#include "quantizers/ibq/ibq.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/codebook_quantizer.h"
#include "core/quantize/dim.h"
#include "core/quantize/estimators.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

class Ibq : public CodebookQuantizer {
 public:
  explicit Ibq(CodebookSpec spec) : CodebookQuantizer(std::move(spec)) {
    at::Generator generator = at::detail::createCPUGenerator(StreamKey(
        this->spec().seed, absl::StrCat(this->spec().instance, "/ibq/init")));
    const int64_t codes = this->spec().num_codes;
    codebook_ = register_parameter(
        "codebook", (at::rand({codes, this->spec().dim}, generator) * 2 - 1) /
                        static_cast<double>(codes));
  }

  CodebookInfo info() const override {
    CodebookInfo info = CodebookQuantizer::info();
    info.idempotent = false;  // Inner products are no distances.
    return info;
  }
  std::vector<std::string> EstimatedLosses() const override {
    return {"quantization"};
  }

 private:
  at::Tensor Codes() const override { return codebook_; }

  at::Tensor Assign(const at::Tensor& z,
                    const at::Tensor& codebook) const override {
    return MostSimilar(z, codebook);
  }

  // Without infinities, which would make the softmax undefined.
  at::Tensor Similarity(const at::Tensor& z,
                        const at::Tensor& codebook) const override {
    return at::nan_to_num(at::matmul(z, codebook.t()));
  }

  at::Tensor Pass(const Coded& coded) const override {
    const at::Tensor p =
        at::softmax(Similarity(coded.rows.z, coded.codebook), 1);
    return WithMixtureGradient(coded.vectors, p, coded.codebook);
  }

  NamedTensors Losses(const Coded& coded) const override {
    const at::Tensor& z = coded.rows.z;
    return {{"quantization", MeanSquare(coded, coded.passed, z)},
            {"commitment", coded.error / static_cast<double>(spec().dim)},
            {"codebook", MeanSquare(coded, z.detach(), coded.vectors)}};
  }

  void Start(const InitialCodes& initial) override {
    codebook_.copy_(OfLength(initial.codes, Lengths(initial.codes).mean()));
  }

  void Gather(const CodeSums& step) override {
    const at::Tensor length = Lengths(codebook_);
    const at::Tensor share = step.counts.to(at::kDouble);
    const at::Tensor total = share.sum();
    used_length_ = at::where(
        total > 0, (share * length).sum() / total.clamp_min(1), length.mean());
  }

  // As long as the codes that the step's features got: a code that is not used
  // does not grow with them, so the mean over all codes can be too short to be
  // any feature's greatest product.
  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override {
    if (!fresh.defined()) return;
    codebook_.copy_(at::where(revived.unsqueeze(1),
                              OfLength(fresh, used_length_), codebook_));
  }

  // In float64, where no square overflows.
  static at::Tensor Lengths(const at::Tensor& vectors) {
    return vectors.to(at::kDouble).norm(2, 1);
  }

  // The directions of `vectors` at one length: a longer one would draw all
  // features of its half of the space.
  static at::Tensor OfLength(const at::Tensor& vectors,
                             const at::Tensor& length) {
    return UnitVectors(vectors) * length.to(vectors.scalar_type());
  }

  at::Tensor codebook_;
  at::Tensor used_length_;  // Scalar: mean length of the step's codes.
};

}  // namespace

absl::Status ValidateIbq(const IbqConfig& config) {
  CodebookUse use;
  use.metric = false;
  use.estimator = false;
  FieldErrors errors;
  CheckCodebook(config.num_codes(), config.codebook(), use, &errors);
  return errors.status();
}

Contract IbqContract(const std::string& /*instance*/, const IbqConfig& config,
                     const ContractBook& /*book*/) {
  return OneGroupContract(config.num_codes());
}

absl::StatusOr<std::shared_ptr<Quantizer>> MakeIbq(
    const IbqConfig& config, const PluginContext& context) {
  // Part of IBQ's loss: without them few codes stay in use.
  CodebookOptions options = config.codebook();
  if (!options.has_entropy_loss()) options.set_entropy_loss(true);
  if (!options.has_diversity_loss()) options.set_diversity_loss(true);
  auto spec = MakeCodebookSpec("ibq", config.num_codes(), options, context);
  if (!spec.ok()) return spec.status();
  return std::make_shared<Ibq>(*std::move(spec));
}

}  // namespace semvq
