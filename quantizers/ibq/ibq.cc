#include "quantizers/ibq/ibq.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
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
    // A bounded part of the logits at a time.
    const int64_t part = std::max<int64_t>(1, kLogits / codebook.size(0));
    std::vector<at::Tensor> codes = {
        at::empty({0}, z.options().dtype(at::kLong))};
    for (int64_t i = 0; i < z.size(0); i += part) {
      const at::Tensor some = z.narrow(0, i, std::min(part, z.size(0) - i));
      codes.push_back(Similarity(some, codebook).argmax(1));
    }
    return at::cat(codes);
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
    codebook_.copy_(WithLengthOf(initial.codes, initial.codes));
  }

  void Renew(const at::Tensor& revived, const at::Tensor& fresh) override {
    if (!fresh.defined()) return;
    codebook_.copy_(at::where(revived.unsqueeze(1),
                              WithLengthOf(fresh, codebook_), codebook_));
  }

  // Vectors of the mean length of `codes`: a longer one would draw all features
  // of its half of the space. In float64, where no square overflows.
  static at::Tensor WithLengthOf(const at::Tensor& vectors,
                                 const at::Tensor& codes) {
    const at::Tensor length = codes.to(at::kDouble).norm(2, 1).mean();
    return UnitVectors(vectors) * length.to(vectors.scalar_type());
  }

  static constexpr int64_t kLogits = int64_t{1} << 24;
  at::Tensor codebook_;
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
  auto spec =
      MakeCodebookSpec("ibq", config.num_codes(), config.codebook(), context);
  if (!spec.ok()) return spec.status();
  return std::make_shared<Ibq>(*std::move(spec));
}

}  // namespace semvq
