#include "core/quantize/codebook_quantizer.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/quantize/dim.h"
#include "core/quantize/draws.h"
#include "core/quantize/estimators.h"
#include "core/quantize/soft_codes.h"
#include "core/random/stream.h"
#include "kernels/lookup.h"
#include "kernels/scatter.h"

namespace semvq {

absl::StatusOr<CodebookSpec> MakeCodebookSpec(absl::string_view type,
                                              int64_t num_codes,
                                              const CodebookOptions& options,
                                              const PluginContext& context) {
  const absl::StatusOr<int64_t> dim = FeatureDim(context);
  if (!dim.ok()) return dim.status();
  CodebookSpec spec;
  spec.type = std::string(type);
  spec.instance = context.instance;
  spec.seed = context.seed;
  spec.num_codes = num_codes;
  spec.dim = *dim;
  spec.metric = options.metric() == CodebookOptions::COSINE ? Metric::kCosine
                                                            : Metric::kL2;
  spec.options = options;
  return spec;
}

void CheckCodebook(int64_t num_codes, const CodebookOptions& options,
                   const CodebookUse& use, FieldErrors* errors) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  errors->Require(num_codes >= 1 && num_codes <= kMax, "num_codes", num_codes,
                  "1 to 2147483647");
  const auto unused = [errors](bool set, absl::string_view field) {
    errors->Require(!set, absl::StrCat("codebook.", field), "a value",
                    "none: it means nothing to this quantizer");
  };
  if (!use.metric) unused(options.has_metric(), "metric");
  if (!use.estimator) unused(options.has_estimator(), "estimator");
  if (!use.init) {
    unused(options.has_init(), "init");
    unused(options.has_kmeans_iterations(), "kmeans_iterations");
    unused(options.has_kmeans_samples(), "kmeans_samples");
  }
  if (!use.revival) {
    unused(options.has_revive_after(), "revive_after");
    unused(options.has_reservoir(), "reservoir");
  }
  if (!use.code_gradient)
    unused(options.has_orthogonality_loss(), "orthogonality_loss");
  errors->Require(
      options.kmeans_iterations() >= 0 && options.kmeans_iterations() <= 10000,
      "codebook.kmeans_iterations", options.kmeans_iterations(), "0 to 10000");
  errors->Require(options.kmeans_samples() >= 0, "codebook.kmeans_samples",
                  options.kmeans_samples(), "0 (all features) or more");
  errors->Require(options.revive_after() >= 0, "codebook.revive_after",
                  options.revive_after(), "0 (never) or more steps");
  errors->Require(options.reservoir() >= 1 && options.reservoir() <= kMax,
                  "codebook.reservoir", options.reservoir(), "1 to 2147483647");
  errors->Require(options.usage_window() >= 1 && options.usage_window() <= kMax,
                  "codebook.usage_window", options.usage_window(),
                  "1 to 2147483647");
  const auto temperature = [errors](absl::string_view field, double value) {
    errors->Require(value >= 1e-6 && value <= 1e6,
                    absl::StrCat("codebook.", field), value,
                    "0.000001 to 1000000");
  };
  temperature("soft_temperature", options.soft_temperature());
  if (options.has_soft_temperature_end())
    temperature("soft_temperature_end", options.soft_temperature_end());
  errors->Require(options.soft_temperature_steps() >= 0,
                  "codebook.soft_temperature_steps",
                  options.soft_temperature_steps(), "0 (at once) or more");
}

CodebookQuantizer::CodebookQuantizer(CodebookSpec spec)
    : spec_(std::move(spec)) {
  starved_ = register_buffer("starved", at::zeros({spec_.num_codes}));
  initialised_ = register_buffer("initialised", at::zeros({}));
  history_ = register_module(
      "history",
      std::make_shared<CodeHistory>(spec_.num_codes, options().usage_window()));
  reservoir_ = register_module(
      "reservoir",
      std::make_shared<FeatureReservoir>(options().reservoir(), spec_.dim));
}

Quantized CodebookQuantizer::Quantize(const at::Tensor& features,
                                      const QuantizeContext& context) {
  // Codes must not depend on whether the step runs in bfloat16.
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const bool train = context.mode == QuantizeMode::kTrain;
  Coded coded;
  coded.step = context.step;
  coded.train = train;
  coded.rows = ToRows(features, context, spec_.dim, reservoir_->scalar_type(),
                      spec_.instance);
  if (spec_.metric == Metric::kCosine) coded.rows.z = UnitVectors(coded.rows.z);
  if (train) Initialise(coded.rows, context);

  coded.codebook = Codes();
  const at::Tensor z = coded.rows.z.detach();
  Choose(features, context, &coded);
  at::Tensor book = coded.codebook;
  at::Tensor counts;
  if (train) {
    // Features that are not finite would spoil the codes for good.
    const at::Tensor counted = CountedCodes(coded.codes, coded.rows);
    CodeSums sums;
    if (needs_sums()) {
      sums = CodeStatistics(z, counted, spec_.num_codes);
    } else {
      sums.counts = Histogram(counted, spec_.num_codes);
    }
    sums = SumOverRanks(std::move(sums), coded.rows.group);
    counts = sums.counts;
    if (options().revive_after() > 0) {
      reservoir_->Offer(z, coded.rows.usable, context.step,
                        Key(context.seed, "reservoir", context.step),
                        coded.rows.group);
    }
    pending_.Add(std::move(sums), context.step);
    if (!context.frozen) book = LookupCodes(book, *pending_.sums());
  }
  // The gradient of a code adds up in one order on every device.
  coded.vectors = book.requires_grad() ? semvq::LookupCodes(book, coded.codes)
                                       : book.index_select(0, coded.codes);
  coded.passed = Pass(coded);
  Quantized result = FromRows(features, coded.rows, coded.passed, coded.codes);
  if (!train) return result;

  coded.error =
      MeanOverRows(SquaredDistances(coded.rows.z, coded.passed), coded.rows);
  result.losses = Losses(coded);
  for (auto& loss : SharedLosses(coded)) result.losses.push_back(loss);
  if (coded.q.defined()) ReportDraws(features, coded, &result);
  c10::NoGradGuard no_grad;
  result.metrics = history_->Metrics(counts, context.step);
  result.metrics.emplace_back("quantization_error", coded.error.detach());
  result.metrics.emplace_back("nonfinite", NonFiniteRows(coded.rows));
  if (options().has_soft_temperature_end()) {
    result.metrics.emplace_back(
        "soft_temperature",
        at::full({}, SoftTemperature(context.step), coded.error.options()));
  }
  Report(coded, &result.metrics);
  AverageOverRanks(coded.rows.group, &result.metrics);
  return result;
}

at::Tensor CodebookQuantizer::Lookup(const at::Tensor& codes) {
  CheckCodes(codes, spec_.num_codes, spec_.instance);
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  std::vector<int64_t> shape = codes.sizes().vec();
  shape.back() = spec_.dim;
  return Codes().index_select(0, codes.reshape({-1})).view(shape);
}

CodebookInfo CodebookQuantizer::info() const {
  CodebookInfo info;
  info.codes_per_group = {spec_.num_codes};
  info.dim = spec_.dim;
  return info;
}

absl::Status CodebookQuantizer::AfterStep(const QuantizeContext& context) {
  c10::NoGradGuard no_grad;
  const std::optional<CodeSums> pending = pending_.Take();
  if (!pending.has_value()) return absl::OkStatus();
  reservoir_->Commit(context.step);
  at::Tensor revived = at::zeros_like(starved_, at::kBool);
  if (!context.frozen) {
    Gather(*pending);
    at::Tensor fresh;
    if (options().revive_after() > 0) {
      starved_.copy_(at::where(Starved(*pending), starved_ + 1,
                               at::zeros({}, starved_.options())));
      revived = starved_ >= static_cast<double>(options().revive_after());
      fresh =
          reservoir_->Draw(revived, Key(context.seed, "revive", context.step));
      starved_.masked_fill_(revived, 0);
    }
    Renew(revived, fresh);
  }
  history_->Update(pending->counts, revived, context.step);
  return absl::OkStatus();
}

at::Tensor CodebookQuantizer::Assign(const at::Tensor& z,
                                     const at::Tensor& codebook) const {
  return AssignNearest(z, codebook, spec_.metric);
}

void CodebookQuantizer::Choose(const at::Tensor& features,
                               const QuantizeContext& context,
                               Coded* coded) const {
  const at::Tensor& z = coded->rows.z;
  const at::Tensor codebook = coded->codebook.detach();
  if (options().estimator() != CodebookOptions::GUMBEL) {
    coded->codes = Assign(z.detach(), codebook);
    return;
  }
  if (coded->train || z.requires_grad()) {
    // Infinities would make the softmax undefined.
    const at::Tensor logits =
        at::nan_to_num(Similarity(z, codebook) / SoftTemperature(coded->step));
    ChooseBy(logits, /*temperature=*/1, absl::StrCat(spec_.type, "/draw"),
             features, context, coded);
  }
  if (!coded->train) coded->codes = Assign(z.detach(), codebook);
}

void CodebookQuantizer::ChooseBy(const at::Tensor& logits, double temperature,
                                 const std::string& purpose,
                                 const at::Tensor& features,
                                 const QuantizeContext& context,
                                 Coded* coded) const {
  at::Tensor noisy = logits;
  if (coded->train) {
    noisy = logits + GumbelNoise(features, spec_.num_codes,
                                 absl::StrCat(spec_.instance, "/", purpose),
                                 spec_.instance, context)
                         .to(logits);
    const at::Tensor log_q = at::log_softmax(logits, -1);
    coded->q = log_q.exp();
    coded->entropy = -(coded->q * log_q).sum(-1);
  }
  coded->relaxed = at::softmax(noisy / temperature, -1);
  coded->codes = noisy.detach().argmax(-1);
}

at::Tensor CodebookQuantizer::MostSimilar(const at::Tensor& z,
                                          const at::Tensor& codebook) const {
  constexpr int64_t kMostEntries = int64_t{1} << 24;
  const int64_t part = std::max<int64_t>(1, kMostEntries / codebook.size(0));
  std::vector<at::Tensor> codes = {
      at::empty({0}, z.options().dtype(at::kLong))};
  for (int64_t i = 0; i < z.size(0); i += part) {
    const at::Tensor some = z.narrow(0, i, std::min(part, z.size(0) - i));
    codes.push_back(Similarity(some, codebook).argmax(1));
  }
  return at::cat(codes);
}

double CodebookQuantizer::SoftTemperature(int64_t step) const {
  const CodebookOptions& o = options();
  if (!o.has_soft_temperature_end()) return o.soft_temperature();
  return CosineRamp(o.soft_temperature(), o.soft_temperature_end(),
                    o.soft_temperature_steps(), step);
}

at::Tensor CodebookQuantizer::Similarity(const at::Tensor& z,
                                         const at::Tensor& codebook) const {
  if (spec_.metric == Metric::kCosine)
    return at::matmul(z, UnitVectors(codebook).t());
  return 2 * at::matmul(z, codebook.t()) - codebook.square().sum(1);
}

at::Tensor CodebookQuantizer::Pass(const Coded& coded) const {
  if (coded.relaxed.defined()) {
    return WithMixtureGradient(coded.vectors.detach(), coded.relaxed,
                               coded.codebook);
  }
  return options().estimator() == CodebookOptions::ROTATION
             ? RotationTrick(coded.rows.z, coded.vectors)
             : StraightThrough(coded.rows.z, coded.vectors);
}

at::Tensor CodebookQuantizer::LookupCodes(const at::Tensor& codebook,
                                          const CodeSums& /*sums*/) const {
  return codebook;
}

void CodebookQuantizer::Start(const InitialCodes& /*initial*/) {}

at::Tensor CodebookQuantizer::Starved(const CodeSums& step) const {
  return step.counts == 0;
}

at::Tensor CodebookQuantizer::RandomCodes() const {
  at::Generator generator =
      at::detail::createCPUGenerator(Key(spec_.seed, "init", 0));
  return at::randn({spec_.num_codes, spec_.dim}, generator) /
         std::sqrt(spec_.dim);
}

at::Tensor CodebookQuantizer::MeanSquare(const Coded& coded,
                                         const at::Tensor& a,
                                         const at::Tensor& b) const {
  return MeanOverRows((a - b).square().sum(1), coded.rows) /
         static_cast<double>(spec_.dim);
}

uint64_t CodebookQuantizer::Key(uint64_t seed, absl::string_view purpose,
                                int64_t step) const {
  return StreamKey(seed,
                   absl::StrCat(spec_.instance, "/", spec_.type, "/", purpose),
                   static_cast<uint64_t>(step));
}

// On the first training batch that has a usable feature.
void CodebookQuantizer::Initialise(const FeatureRows& rows,
                                   const QuantizeContext& context) {
  // The host's copy spares a wait for the device; a codebook that was once
  // initialised stays so.
  if (known_initialised_ && !initialised_.is_cpu()) return;
  known_initialised_ = initialised_.item<double>() != 0;
  if (known_initialised_) return;
  c10::NoGradGuard no_grad;
  const ShardedRows points =
      ShardedRows::Counted(rows.z.detach().index({rows.usable}), rows.group);
  if (points.size() == 0) return;
  const uint64_t key = Key(context.seed, "first batch", context.step);
  const CodebookOptions& o = options();
  if (o.init() == CodebookOptions::KMEANS) {
    Start(KMeansCodes(points, spec_.num_codes, o.kmeans_iterations(),
                      o.kmeans_samples(), spec_.metric, key));
  } else if (o.init() == CodebookOptions::DATA) {
    Start(DataCodes(points, spec_.num_codes, key));
  }
  reservoir_->Fill(points, Mix64(key));
  initialised_.fill_(1);
  known_initialised_ = true;
}

NamedTensors CodebookQuantizer::SharedLosses(const Coded& coded) const {
  NamedTensors losses;
  if (options().entropy_loss() || options().diversity_loss()) {
    const SoftCodes soft(
        Similarity(coded.rows.z, coded.codebook) / SoftTemperature(coded.step),
        coded.rows);
    if (options().entropy_loss())
      losses.emplace_back("entropy", soft.MeanEntropy());
    if (options().diversity_loss())
      losses.emplace_back("diversity", -soft.EntropyOfMean());
  }
  if (options().orthogonality_loss())
    losses.emplace_back("orthogonality", Orthogonality(coded.codebook));
  return losses;
}

void CodebookQuantizer::ReportDraws(const at::Tensor& features,
                                    const Coded& coded,
                                    Quantized* result) const {
  at::Tensor q = coded.q, entropy = coded.entropy;
  if (coded.rows.valid.defined()) {
    const at::Tensor zero = at::zeros({}, q.options());
    q = at::where(coded.rows.valid.unsqueeze(1), q, zero);
    entropy = at::where(coded.rows.valid, entropy, zero);
  }
  const int64_t batch = features.size(0), positions = features.size(1);
  result->assignment = q.view({batch, positions, spec_.num_codes});
  result->entropy = entropy.view({batch, positions});
}

}  // namespace semvq
