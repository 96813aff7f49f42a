// All that quantizers with a learned codebook have in common: assignment,
// estimators, initialisation, revival, statistics, metrics and the losses of
// CodebookOptions. A quantizer adds its formula.
#ifndef SEMVQ_CORE_QUANTIZE_CODEBOOK_QUANTIZER_H_
#define SEMVQ_CORE_QUANTIZE_CODEBOOK_QUANTIZER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/plugin/context.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/quantizer.h"
#include "core/quantize/code_history.h"
#include "core/quantize/codebook.h"
#include "core/quantize/rows.h"
#include "kernels/assign.h"
#include "protos/codebook.pb.h"

namespace semvq {

struct CodebookSpec {
  std::string type;      // "vq_ema": part of the keys of random draws.
  std::string instance;  // For messages, and part of those keys, too.
  uint64_t seed = 1;
  int64_t num_codes = 0;
  int64_t dim = 0;
  Metric metric = Metric::kL2;
  CodebookOptions options;
};

// InvalidArgument when the context does not tell the features' dimension.
absl::StatusOr<CodebookSpec> MakeCodebookSpec(absl::string_view type,
                                              int64_t num_codes,
                                              const CodebookOptions& options,
                                              const PluginContext& context);

// Options that mean something to a quantizer; setting another is an error.
struct CodebookUse {
  bool metric = true;
  bool estimator = true;
  bool init = true;  // From data; with its k-means fields.
  bool revival = true;
  bool code_gradient = true;  // The losses that have one to the codes alone.
};

// Checks the config fields num_codes and codebook.
void CheckCodebook(int64_t num_codes, const CodebookOptions& options,
                   const CodebookUse& use, FieldErrors* errors);

class CodebookQuantizer : public Quantizer {
 public:
  Quantized Quantize(const at::Tensor& features,
                     const QuantizeContext& context) final;
  at::Tensor Lookup(const at::Tensor& codes) final;
  CodebookInfo info() const override;
  NamedTensors CodeValues() const final { return history_->CodeValues(); }
  absl::Status AfterStep(const QuantizeContext& context) final;

 protected:
  // A batch with its codes.
  struct Coded {
    int64_t step = 0;
    bool train = false;
    FeatureRows rows;     // With the metric COSINE z has length 1.
    at::Tensor codebook;  // [K, D]: Codes().
    at::Tensor codes;     // int64 [M]
    // Of draws, else undefined: the distribution q [M, K] that a training
    // batch's codes are drawn from, its entropy [M] in nats, and what the
    // gradient passes through, softmax((ln q + g) / temperature) [M, K], g the
    // noise (outside training 0).
    at::Tensor q, entropy, relaxed;
    at::Tensor vectors;  // [M, D], with the gradient to the codebook.
    at::Tensor passed;   // Pass(): the values that leave.
    at::Tensor error;    // MeanOverRows of |z - sg(passed)|^2.
  };

  // Registers the buffers starved [K] (steps in a row a code starved for),
  // initialised, history.* and reservoir.rows.
  explicit CodebookQuantizer(CodebookSpec spec);

  // The formula.

  // The codes as they are compared and looked up, [K, D], with the gradient to
  // what they are made of.
  virtual at::Tensor Codes() const = 0;
  // Named, unweighted losses of a training batch.
  virtual NamedTensors Losses(const Coded& coded) const = 0;
  // Codes of features z [M, D]: by default the nearest ones.
  virtual at::Tensor Assign(const at::Tensor& z,
                            const at::Tensor& codebook) const;
  // Sets codes and, where they are drawn, q, entropy and relaxed. By default a
  // training batch's are drawn if the option `estimator` is GUMBEL, from the
  // softmax of Similarity / soft_temperature; all others come from Assign.
  virtual void Choose(const at::Tensor& features,
                      const QuantizeContext& context, Coded* coded) const;
  // What soft_temperature divides, [M, K]: by default -|z - e|^2 (less a
  // constant of the feature), with COSINE the cosine.
  virtual at::Tensor Similarity(const at::Tensor& z,
                                const at::Tensor& codebook) const;
  // The vectors (`passed` is not set yet) with the gradient to the features: by
  // default that of the option `estimator`.
  virtual at::Tensor Pass(const Coded& coded) const;
  // The codes to look up in a training batch whose statistics (with those of
  // the step's earlier micro-steps, and of all ranks) are `sums`; by default
  // `codebook`.
  virtual at::Tensor LookupCodes(const at::Tensor& codebook,
                                 const CodeSums& sums) const;

  // Metrics of a training batch beside those that all quantizers have.
  virtual void Report(const Coded& /*coded*/, NamedTensors* /*metrics*/) const {
  }

  // The update. None of these is called while frozen, but for Start.

  // Takes the codes of the first batch. Not called with init: RANDOM.
  virtual void Start(const InitialCodes& initial);
  // Whether Gather reads sums; otherwise only features are counted.
  virtual bool needs_sums() const { return false; }
  // Takes the statistics of an optimizer step, of all ranks as in all below.
  virtual void Gather(const CodeSums& /*step*/) {}
  // Codes that starve, bool [K]: by default those without a feature.
  virtual at::Tensor Starved(const CodeSums& step) const;
  // Ends an optimizer step: codes with `revived` [K] become `fresh` [K, D],
  // which is undefined when none can be revived.
  virtual void Renew(const at::Tensor& revived, const at::Tensor& fresh) = 0;

  // Chooses by logits [M, K], as Coded says; the rows are those of `features`
  // [B, N, D]. Noise is keyed by "<instance>/<purpose>".
  void ChooseBy(const at::Tensor& logits, double temperature,
                const std::string& purpose, const at::Tensor& features,
                const QuantizeContext& context, Coded* coded) const;
  // The code of the greatest similarity, int64 [M], with a bounded part of the
  // [M, K] at a time.
  at::Tensor MostSimilar(const at::Tensor& z, const at::Tensor& codebook) const;

  // Normal with variance 1 / D, [K, D], by seed and instance.
  at::Tensor RandomCodes() const;
  // MeanOverRows of (a - b)^2 over dimensions, too; a and b [M, D].
  at::Tensor MeanSquare(const Coded& coded, const at::Tensor& a,
                        const at::Tensor& b) const;

  const CodebookSpec& spec() const { return spec_; }
  const CodebookOptions& options() const { return spec_.options; }

 private:
  uint64_t Key(uint64_t seed, absl::string_view purpose, int64_t step) const;
  void Initialise(const FeatureRows& rows, const QuantizeContext& context);
  double SoftTemperature(int64_t step) const;
  NamedTensors SharedLosses(const Coded& coded) const;
  void ReportDraws(const at::Tensor& features, const Coded& coded,
                   Quantized* result) const;

  const CodebookSpec spec_;
  at::Tensor starved_;
  at::Tensor initialised_;  // Scalar, 0 or 1.
  bool known_initialised_ = false;
  std::shared_ptr<CodeHistory> history_;
  std::shared_ptr<FeatureReservoir> reservoir_;
  PendingStatistics pending_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_CODEBOOK_QUANTIZER_H_
