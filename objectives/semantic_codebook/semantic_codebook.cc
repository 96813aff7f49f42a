#include "objectives/semantic_codebook/semantic_codebook.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/nn/token_decoder.h"
#include "core/objective/bound.h"
#include "core/objective/decoding.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "objectives/semantic_codebook/config.pb.h"
#include "objectives/semantic_codebook/prior.h"

namespace semvq {
namespace {

using Config = SemanticCodebookConfig;

constexpr char kDecodedPatches[] = "decoded_patches";

// Positions drawn uniformly, without replacement.
struct Drawn {
  at::Tensor positions;  // int64 [B, M]; 0 where not valid.
  at::Tensor valid;      // bool [B, M]
  at::Tensor total;      // int64 [B], positions that could be drawn.
};

class SemanticCodebook : public Objective {
 public:
  SemanticCodebook(const Config& config, const PluginContext& context,
                   const TokenDecoderOptions& decoder,
                   const PriorOptions& prior, bool exact_codes)
      : config_(config),
        instance_(context.instance),
        grid_(decoder.grid),
        codes_per_group_(prior.codes_per_group),
        sum_name_(SumName(config, exact_codes)) {
    weights_.reconstruction = config.reconstruction_weight();
    weights_.kl = config.kl_weight();
    weights_.words = config.words_weight();
    decoder_ =
        register_module("decoder", std::make_shared<TokenDecoder>(decoder));
    if (config.prior() != Config::UNIFORM) {
      prior_ = register_module("prior", std::make_shared<CodePrior>(prior));
    }
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kDecodedPatches) return Decode(key, forward);
    if (key.view == kReconstruction) {
      return Unpatchify(forward.Get<at::Tensor>(ImageKey(
                            instance_, kDecodedPatches, key.variant, key.slot)),
                        grid_, config_.patch_size());
    }
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const Quantized& quantized = Codes(forward);
    const at::Tensor prediction =
        Upcast(forward.Get<at::Tensor>(ImageKey(instance_, kDecodedPatches)));
    const at::Tensor target = Target(forward).to(prediction.scalar_type());

    ObjectiveOutput out;
    BoundTerms terms;
    terms.reconstruction =
        GaussianLogLikelihood(prediction, target, config_.sigma());
    terms.entropy = Entropy(quantized, prediction);
    switch (config_.prior()) {
      case Config::PSEUDO_LIKELIHOOD:
        PseudoLikelihood(quantized, forward, &terms, &out.metrics);
        break;
      case Config::AUTOREGRESSIVE:
        Autoregressive(quantized, forward, &terms, &out.metrics);
        break;
      case Config::UNIFORM:
        terms.prior_codes = Uniform(quantized, prediction);
        break;
    }

    const double patches = static_cast<double>(grid_.height * grid_.width);
    for (const auto& [name, term] : WeightedTerms(terms, weights_))
      out.losses.emplace_back(name, term.mean() / -patches);
    Report(terms, quantized, &out.metrics);
    out.metrics.emplace_back("explained_variance",
                             ExplainedVariance(prediction, target));
    return out;
  }

 private:
  // What the sum of the terms is. Decoder and prior that read mixtures of the
  // codes' vectors say nothing of p(x, y, z).
  static const char* SumName(const Config& config, bool exact_codes) {
    if (config.prior() == Config::PSEUDO_LIKELIHOOD) return "pseudo_bound";
    return exact_codes ? "bound" : "relaxed_bound";
  }

  const Quantized& Codes(Forward& forward) const {
    return forward
        .Get<QuantizedTokens>(ImageKey(config_.quantizer(), kQuantized))
        .quantized;
  }

  at::Tensor Decode(const ViewKey& key, Forward& forward) {
    const at::Tensor& tokens =
        forward
            .Get<QuantizedTokens>(ImageKey(config_.quantizer(), kQuantized,
                                           key.variant, key.slot))
            .tokens;
    if (!config_.condition_on_text()) return decoder_->Forward(tokens, nullptr);
    const CrossMemory text =
        FirstTextMemory(config_.text(), key.variant.teacher,
                        config_.stop_text_gradient(), forward);
    return decoder_->Forward(tokens, &text);
  }

  // What is reconstructed, [B, N, D].
  at::Tensor Target(Forward& forward) const {
    if (config_.target() == Config::PIXELS) {
      return Patchify(forward.batch().images.select(1, 0),
                      config_.patch_size());
    }
    const Tokens& tokens =
        forward.Get<Tokens>(ImageKey(config_.target_encoder(), kTokens));
    TORCH_CHECK(
        tokens.grid.height == grid_.height && tokens.grid.width == grid_.width,
        "semantic_codebook \"", instance_, "\": target_encoder ",
        config_.target_encoder(), " has a grid of ", tokens.grid.height, " x ",
        tokens.grid.width, ", the codes one of ", grid_.height, " x ",
        grid_.width, "; both need the same patch size");
    at::Tensor features = tokens.values.detach();
    if (tokens.has_cls) features = features.narrow(1, 1, features.size(1) - 1);
    features = Upcast(features);
    if (!config_.normalize_features()) return features;
    return features / features.norm(2, -1, true).clamp_min(1e-12);
  }

  // H(q), [B]; 0 for hard codes.
  static at::Tensor Entropy(const Quantized& quantized,
                            const at::Tensor& like) {
    at::Tensor entropy;
    if (quantized.entropy.has_value()) {
      entropy = *quantized.entropy;
    } else if (quantized.assignment.has_value()) {
      entropy = CategoricalEntropy(*quantized.assignment);
    } else {
      return at::zeros({like.size(0)}, like.options().requires_grad(false));
    }
    return Upcast(entropy).sum(-1);
  }

  // E_q of the codes' log-probabilities at every position, summed over groups:
  // [B, M]. q is the soft assignment where there is one for the only group,
  // else the codes, which are then a draw from q.
  at::Tensor ExpectedCodes(const std::vector<at::Tensor>& logits,
                           const at::Tensor& codes,
                           const at::Tensor& assignment,
                           NamedTensors* metrics) const {
    at::Tensor sum, top1;
    for (size_t g = 0; g < logits.size(); ++g) {
      const at::Tensor log_p = at::log_softmax(Upcast(logits[g]), -1);
      const at::Tensor own = codes.select(-1, static_cast<int64_t>(g));
      const at::Tensor term = ExpectedLogProbability(log_p, own, assignment);
      const at::Tensor hit = Top1(log_p, own);
      sum = g == 0 ? term : sum + term;
      top1 = g == 0 ? hit : top1 + hit;
    }
    metrics->emplace_back("code_top1",
                          top1 / static_cast<double>(logits.size()));
    return sum;
  }

  at::Tensor SoftCodes(const Quantized& quantized) const {
    if (!quantized.assignment.has_value() || codes_per_group_.size() > 1) {
      return {};
    }
    return *quantized.assignment;
  }

  at::Tensor Vectors(const Quantized& quantized) const {
    return config_.prior_shapes_codes() ? quantized.vectors
                                        : quantized.vectors.detach();
  }

  static Words FirstWords(const Batch& batch) {
    const at::Tensor rows = FirstTexts(batch);
    return {batch.text_ids.index_select(0, rows),
            batch.text_mask.index_select(0, rows)};
  }

  // Positions that a caption's likelihood is about: all but [CLS] and padding.
  static at::Tensor Predicted(const Words& words) {
    at::Tensor predicted = words.mask.clone();
    predicted.select(1, 0).fill_(false);
    return predicted;
  }

  // Draws a `share` of the candidates (bool [B, T]) of every image, one at
  // least. The draws are made on the host, the choice among the candidates on
  // the device, so that nobody waits for it.
  Drawn Draw(const char* what, const at::Tensor& candidates, double share,
             Forward& forward) const {
    c10::NoGradGuard no_grad;
    const int64_t length = candidates.size(1);
    const int64_t capacity =
        std::clamp<int64_t>(std::ceil(share * length), 1, length);
    std::vector<uint64_t> columns(length);
    std::iota(columns.begin(), columns.end(), uint64_t{0});
    const at::Tensor order =
        KeyedGumbel(forward.seed(), instance_ + "/" + what,
                    ImageDrawKeys(forward.batch()), columns)
            .to(candidates.device(), /*non_blocking=*/true)
            .masked_fill(candidates.logical_not(), -INFINITY);
    Drawn drawn;
    drawn.total = candidates.sum(-1);
    const at::Tensor count = at::minimum(
        (drawn.total.to(at::kDouble) * share + 0.5).floor().clamp(1, capacity),
        drawn.total.to(at::kDouble));
    drawn.valid = at::arange(capacity, count.options())
                      .unsqueeze(0)
                      .lt(count.unsqueeze(1));
    drawn.positions = std::get<1>(order.topk(capacity, -1))
                          .masked_fill(drawn.valid.logical_not(), 0);
    return drawn;
  }

  void PseudoLikelihood(const Quantized& quantized, Forward& forward,
                        BoundTerms* terms, NamedTensors* metrics) {
    const Words words = FirstWords(forward.batch());
    const at::Tensor vectors = Vectors(quantized);

    const Drawn codes = Draw("codes", quantized.codes.select(-1, 0).ge(0),
                             config_.hidden_codes(), forward);
    at::Tensor assignment = SoftCodes(quantized);
    if (assignment.defined())
      assignment = GatherPositions(assignment, codes.positions);
    terms->prior_codes = SumFromDrawn(
        ExpectedCodes(prior_->HiddenCodes(vectors, words, codes.positions),
                      GatherPositions(quantized.codes, codes.positions),
                      assignment, metrics),
        codes.valid, codes.total);

    const Drawn hidden =
        Draw("words", Predicted(words), config_.hidden_words(), forward);
    const at::Tensor targets = words.ids.gather(1, hidden.positions)
                                   .masked_fill(hidden.valid.logical_not(), -1);
    const at::Tensor log_p = at::log_softmax(
        Upcast(prior_->HiddenWords(vectors, words, hidden.positions)), -1);
    terms->prior_words = SumFromDrawn(ExpectedLogProbability(log_p, targets),
                                      hidden.valid, hidden.total);
    metrics->emplace_back("word_top1", Top1(log_p, targets));
  }

  void Autoregressive(const Quantized& quantized, Forward& forward,
                      BoundTerms* terms, NamedTensors* metrics) {
    const Words words = FirstWords(forward.batch());
    const PriorLogits logits = prior_->Sequence(Vectors(quantized), words);
    terms->prior_codes = ExpectedCodes(logits.codes, quantized.codes,
                                       SoftCodes(quantized), metrics)
                             .sum(-1);
    const int64_t predicted = words.ids.size(1) - 1;
    const at::Tensor targets =
        words.ids.narrow(1, 1, predicted)
            .masked_fill(words.mask.narrow(1, 1, predicted).logical_not(), -1);
    const at::Tensor log_p = at::log_softmax(Upcast(logits.words), -1);
    terms->prior_words = ExpectedLogProbability(log_p, targets).sum(-1);
    metrics->emplace_back("word_top1", Top1(log_p, targets));
  }

  // -sum_g N_g ln K_g over the codes that are there, [B]: a training step may
  // leave groups out.
  at::Tensor Uniform(const Quantized& quantized, const at::Tensor& like) const {
    const at::Tensor counts =
        quantized.codes.ge(0).sum(1).to(like.scalar_type());  // [B, G]
    at::Tensor sum = at::zeros({counts.size(0)}, counts.options());
    for (size_t g = 0; g < codes_per_group_.size(); ++g) {
      sum = sum - counts.select(1, static_cast<int64_t>(g)) *
                      std::log(static_cast<double>(codes_per_group_[g]));
    }
    return sum;
  }

  void Report(const BoundTerms& terms, const Quantized& quantized,
              NamedTensors* metrics) const {
    c10::NoGradGuard no_grad;
    const auto add = [metrics](const char* name, const at::Tensor& term) {
      if (term.defined()) metrics->emplace_back(name, term.detach().mean());
    };
    add("ln_p_x", terms.reconstruction);
    add("ln_p_codes", terms.prior_codes);
    add("ln_p_words", terms.prior_words);
    add("entropy", terms.entropy);
    add(sum_name_, Bound(terms));
    for (const auto& [name, loss] : quantized.losses)
      metrics->emplace_back("auxiliary_" + name, loss.detach());
  }

  const Config config_;
  const std::string instance_;
  const Grid grid_;
  const std::vector<int64_t> codes_per_group_;
  const char* const sum_name_;
  BoundWeights weights_;
  std::shared_ptr<TokenDecoder> decoder_;
  std::shared_ptr<CodePrior> prior_;  // Null if uniform.
};

int64_t Heads(int64_t heads, int64_t dim) {
  return heads > 0 ? heads : std::max<int64_t>(1, dim / 64);
}

}  // namespace

absl::Status ValidateSemanticCodebook(const SemanticCodebookConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("quantizer", config.quantizer());
  errors.RequireInstance("image", config.image());
  if (config.condition_on_text()) errors.RequireInstance("text", config.text());
  if (config.target() == Config::FEATURES) {
    errors.RequireInstance("target_encoder", config.target_encoder());
  } else {
    errors.Require(config.target_encoder().empty(), "target_encoder",
                   config.target_encoder(),
                   "none where the target is PIXELS; set target: FEATURES");
  }
  errors.Require(config.patch_size() > 0, "patch_size", config.patch_size(),
                 "a positive number");
  errors.Require(config.sigma() >= 1e-3 && config.sigma() <= 1e3, "sigma",
                 config.sigma(), "0.001 to 1000");
  const auto shape = [&errors](const std::string& prefix, int64_t dim,
                               int64_t depth, int64_t heads) {
    constexpr int64_t kMax = 65536;
    errors.Require(dim > 0 && dim <= kMax, prefix + "_dim", dim, "1 to 65536");
    errors.Require(depth > 0 && depth <= 1000, prefix + "_depth", depth,
                   "1 to 1000");
    errors.Require(heads >= 0, prefix + "_heads", heads, "0 or more");
    if (dim > 0 && heads >= 0) {
      errors.Require(dim % Heads(heads, dim) == 0, prefix + "_heads",
                     Heads(heads, dim),
                     absl::StrCat("a divisor of ", prefix, "_dim (", dim, ")"));
    }
  };
  shape("decoder", config.decoder_dim(), config.decoder_depth(),
        config.decoder_heads());
  if (config.prior() != Config::UNIFORM) {
    shape("prior", config.prior_dim(), config.prior_depth(),
          config.prior_heads());
  }
  const auto share = [&errors](const char* field, double value) {
    errors.Require(value >= 0 && value <= 1, field, value, "a share, 0 to 1");
  };
  share("hidden_codes", config.hidden_codes());
  share("hidden_words", config.hidden_words());
  const auto weight = [&errors](const char* field, double value) {
    errors.Require(value >= 0 && value <= 1e6, field, value, "0 to 1000000");
  };
  weight("reconstruction_weight", config.reconstruction_weight());
  weight("kl_weight", config.kl_weight());
  weight("words_weight", config.words_weight());
  return errors.status();
}

Contract SemanticCodebookContract(const std::string& /*instance*/,
                                  const SemanticCodebookConfig& config,
                                  const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kDecodedPatches, 0}};
  contract.needs = {{"quantizer", config.quantizer(), kQuantized, 0, true,
                     "the bound is about codes"},
                    {"image", config.image(), kTokens, 0, false,
                     "the decoded tokens have its dimension"}};
  contract.batch_keys = {"image"};
  if (config.condition_on_text()) {
    contract.needs.push_back({"text", config.text(), kTokens, 0, false,
                              "the decoder reads the caption"});
  }
  if (config.condition_on_text() || config.prior() != Config::UNIFORM) {
    contract.batch_keys.push_back("text");
  }
  if (config.target() == Config::FEATURES) {
    NeededView target{"target_encoder",
                      config.target_encoder(),
                      kTokens,
                      0,
                      false,
                      "a target that moves bounds nothing"};
    target.needs_fixed = true;
    contract.needs.push_back(target);
  } else {
    contract.provides.push_back({kReconstruction, 0});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeSemanticCodebook(
    const SemanticCodebookConfig& config, const PluginContext& context) {
  const auto error = [&context](auto... parts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "semantic_codebook \"", context.instance, "\": ", parts...));
  };
  const ContractBook& book = *context.book;
  const int64_t side = book.image_size / config.patch_size();
  if (side <= 0 || side * config.patch_size() != book.image_size) {
    return error("patch_size ", config.patch_size(),
                 " does not divide the image size ", book.image_size,
                 "; set it to the image encoder's patch size");
  }
  const Contract* quantizer = book.Find(config.quantizer());
  if (quantizer == nullptr || quantizer->codes.codes_per_group.empty()) {
    return error(config.quantizer(),
                 " has no codes; name a quantizer that has");
  }

  TokenDecoderOptions decoder;
  decoder.token_dim = book.Dim(config.image(), kTokens);
  if (decoder.token_dim <= 0) {
    return error("the dimension of ", config.image(),
                 "/tokens is unknown; check image");
  }
  decoder.grid = {side, side};
  decoder.dim = config.decoder_dim();
  decoder.depth = config.decoder_depth();
  decoder.heads = Heads(config.decoder_heads(), config.decoder_dim());
  if (config.condition_on_text()) {
    decoder.text_dim = book.Dim(config.text(), kTokens);
    if (decoder.text_dim <= 0) {
      return error("the dimension of ", config.text(),
                   "/tokens is unknown; check text");
    }
  }
  decoder.out = config.target() == Config::PIXELS
                    ? 3 * config.patch_size() * config.patch_size()
                    : book.Dim(config.target_encoder(), kTokens);
  if (decoder.out <= 0) {
    return error("the dimension of ", config.target_encoder(),
                 "/tokens is unknown; check target_encoder");
  }

  PriorOptions prior;
  prior.codes_per_group = quantizer->codes.codes_per_group;
  if (config.prior() != Config::UNIFORM) {
    if (context.vocab_size <= 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "semantic_codebook \"", context.instance,
          "\" models words, and the experiment has no `text`; set it, or "
          "prior: UNIFORM"));
    }
    prior.vector_dim = book.Dim(config.quantizer(), kQuantized);
    if (prior.vector_dim <= 0) {
      return error("the dimension of ", config.quantizer(),
                   "/quantized is unknown; check quantizer");
    }
    prior.vocab_size = context.vocab_size;
    prior.max_tokens = book.max_tokens;
    prior.grid = decoder.grid;
    prior.dim = config.prior_dim();
    prior.depth = config.prior_depth();
    prior.heads = Heads(config.prior_heads(), config.prior_dim());
    prior.causal = config.prior() == Config::AUTOREGRESSIVE;
  }
  return std::make_shared<SemanticCodebook>(config, context, decoder, prior,
                                            quantizer->codes.exact_lookup);
}

}  // namespace semvq
