#include "objectives/semantic_codebook/semantic_codebook.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/nn/testing.h"
#include "core/objective/bound.h"
#include "core/plugin/objective.h"
#include "objectives/semantic_codebook/config.pb.h"

namespace semvq {
namespace {

using Config = SemanticCodebookConfig;

constexpr int64_t kTokenDim = 3, kTextDim = 5, kVectorDim = 2;
constexpr int64_t kImageSize = 4, kPatch = 2, kPatches = 4, kCodes = 3;

Config Small(Config::Prior prior = Config::PSEUDO_LIKELIHOOD) {
  Config config;
  config.set_patch_size(kPatch);
  config.set_decoder_dim(4);
  config.set_decoder_depth(1);
  config.set_decoder_heads(2);
  config.set_prior(prior);
  config.set_prior_dim(4);
  config.set_prior_depth(1);
  config.set_prior_heads(2);
  config.set_sigma(0.8);
  return config;
}

struct World {
  int64_t vocab = 20;
  int64_t length = 6;
  std::vector<int64_t> codes_per_group = {kCodes};
  bool exact_codes = true;
};

absl::StatusOr<std::shared_ptr<Objective>> TryMake(const Config& config,
                                                   const World& world = {}) {
  torch::manual_seed(20);
  ContractBook book;
  book.image_size = kImageSize;
  book.max_tokens = world.length;
  const auto add = [&book](const char* name, const char* view, int64_t dim) {
    Contract contract;
    contract.provides = {{view, dim}};
    book.Add(name, contract);
  };
  add("image", kTokens, kTokenDim);
  add("text", kTokens, kTextDim);
  add("fixed", kTokens, 7);
  Contract codebook;
  codebook.provides = {{kQuantized, kVectorDim}};
  codebook.codes.codes_per_group = world.codes_per_group;
  codebook.codes.exact_lookup = world.exact_codes;
  book.Add("codebook", codebook);
  PluginContext context;
  context.instance = "bound";
  context.book = &book;
  context.vocab_size = world.vocab;
  return MakeSemanticCodebook(config, context);
}

std::shared_ptr<Objective> Make(const Config& config, const World& world = {}) {
  auto made = TryMake(config, world);
  EXPECT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  for (at::Tensor p : (*made)->parameters())
    p.set_data(0.7 * at::randn(p.sizes(), at::kDouble));
  return *made;
}

// A codebook of `codes` vectors, decoded by a fixed map.
struct Codebook {
  explicit Codebook(int64_t codes = kCodes)
      : vectors(at::randn({codes, kVectorDim}, at::kDouble)),
        project(at::randn({kVectorDim, kTokenDim}, at::kDouble)) {}
  // codes int64 [B, N]
  QuantizedTokens Of(const at::Tensor& codes) const {
    QuantizedTokens out;
    out.quantized.codes = codes.unsqueeze(-1);
    out.quantized.vectors = vectors.index({codes});
    out.tokens = at::matmul(out.quantized.vectors, project);
    return out;
  }
  at::Tensor vectors, project;
};

struct Rig {
  Rig(Objective& objective, const Batch& batch, const QuantizedTokens& codes,
      const at::Tensor& text, ForwardOptions options = {true, 7, 0})
      : subject(objective), forward(batch, false, options) {
    forward.student["bound"] = &objective;
    forward->Set(ImageKey("codebook", kQuantized), codes);
    Tokens words;
    words.values = text;
    words.mask = batch.text_mask;
    forward->Set(TextKey("text", kTokens), words);
  }
  ObjectiveOutput Compute() { return subject.Compute(*forward); }
  Objective& subject;
  TestForward forward;
};

Batch Images(int64_t count, const World& world = {}) {
  return TestBatch({.images = count,
                    .length = world.length,
                    .image_size = kImageSize,
                    .vocab = world.vocab});
}

at::Tensor Text(const Batch& batch) {
  torch::manual_seed(3);
  return at::randn({batch.num_texts(), batch.text_ids.size(1), kTextDim},
                   at::kDouble);
}

at::Tensor RandomCodes(int64_t batch) {
  return at::randint(kCodes, {batch, kPatches});
}

bool Has(const NamedTensors& named, const std::string& name) {
  for (const auto& [key, value] : named) {
    if (key == name) return true;
  }
  return false;
}

// Every setting of kPatches codes, [kCodes^kPatches, kPatches].
at::Tensor AllSettings() {
  std::vector<at::Tensor> axes(kPatches, at::arange(kCodes));
  return at::cartesian_prod(axes);
}

// What the objective says of one pair and one setting of the codes is
// ln p(x, y, z): summed over the settings it is ln p(x, y), which every
// reported bound stays below.
TEST(SemanticCodebookTest, TheReportedBoundIsOneByEnumeration) {
  for (const bool reads_text : {true, false}) {
    Config config = Small(Config::AUTOREGRESSIVE);
    config.set_condition_on_text(reads_text);
    auto objective = Make(config);
    at::NoGradGuard no_grad;
    const Codebook codebook;
    const Batch batch = Images(1);
    const at::Tensor text = Text(batch);
    const at::Tensor settings = AllSettings();
    std::vector<double> joint;
    double total_codes = 0;
    for (int64_t z = 0; z < settings.size(0); ++z) {
      Rig rig(*objective, batch, codebook.Of(settings[z].unsqueeze(0)), text);
      const ObjectiveOutput out = rig.Compute();
      joint.push_back(ValueOf(out.metrics, "bound"));
      total_codes += std::exp(ValueOf(out.metrics, "ln_p_codes"));
      EXPECT_EQ(ValueOf(out.metrics, "entropy"), 0);
      EXPECT_NEAR(-kPatches * SumOf(out.losses).item<double>(), joint.back(),
                  1e-9);
    }
    EXPECT_NEAR(total_codes, 1, 1e-9) << "p(z) is no distribution";
    const at::Tensor log_joint = at::tensor(joint, at::kDouble);
    const double exact = log_joint.logsumexp(0).item<double>();
    EXPECT_LT(log_joint.max().item<double>(), exact);

    // Soft q, a product over positions: the reported value is an estimate from
    // the drawn codes; over all draws it averages to the bound itself.
    const at::Tensor q =
        at::softmax(2 * at::randn({1, kPatches, kCodes}, at::kDouble), -1);
    double average = 0, bound = 0;
    for (int64_t z = 0; z < settings.size(0); ++z) {
      double p = 1;
      for (int64_t n = 0; n < kPatches; ++n)
        p *= q[0][n][settings[z][n].item<int64_t>()].item<double>();
      QuantizedTokens drawn = codebook.Of(settings[z].unsqueeze(0));
      drawn.quantized.assignment = q;
      drawn.quantized.entropy = CategoricalEntropy(q);
      Rig rig(*objective, batch, drawn, text);
      average += p * ValueOf(rig.Compute().metrics, "bound");
      bound += p * (joint[z] - std::log(p));
    }
    EXPECT_NEAR(average, bound, 1e-9);
    EXPECT_LT(bound, exact);
  }
}

TEST(SemanticCodebookTest, TheAutoregressivePriorIsADistributionOfWords) {
  World world;
  world.vocab = 5;
  world.length = 3;
  auto objective = Make(Small(Config::AUTOREGRESSIVE), world);
  at::NoGradGuard no_grad;
  const Codebook codebook;
  const at::Tensor codes = RandomCodes(1);
  double total = 0;
  Batch batch = Images(1);
  batch.text_mask = at::ones({1, 3}, at::kBool);
  for (int64_t a = 0; a < world.vocab; ++a) {
    for (int64_t b = 0; b < world.vocab; ++b) {
      batch.text_ids = at::tensor({int64_t{2}, a, b}).unsqueeze(0);
      Rig rig(*objective, batch, codebook.Of(codes), Text(batch));
      total += std::exp(ValueOf(rig.Compute().metrics, "ln_p_words"));
    }
  }
  EXPECT_NEAR(total, 1, 1e-9);
}

TEST(SemanticCodebookTest, UniformPriorIsVqVae) {
  Config config = Small(Config::UNIFORM);
  config.set_condition_on_text(false);
  World world;
  world.vocab = 0;
  auto objective = Make(config, world);
  const Batch batch = Images(2);
  const Codebook codebook;
  Rig rig(*objective, batch, codebook.Of(RandomCodes(2)), Text(batch));
  const ObjectiveOutput out = rig.Compute();
  const at::Tensor image =
      rig.forward->Get<at::Tensor>(ImageKey("bound", kReconstruction));
  ASSERT_EQ(image.sizes(), at::IntArrayRef({2, 3, kImageSize, kImageSize}));
  const double squared =
      (image - batch.images.select(1, 0)).square().sum().item<double>() / 2;
  const double s = 0.8, values = 3 * kImageSize * kImageSize;
  EXPECT_NEAR(-ValueOf(out.metrics, "bound"),
              squared / (2 * s * s) + kPatches * std::log(kCodes) +
                  values * std::log(s * std::sqrt(2 * M_PI)),
              1e-9);
  EXPECT_FALSE(Has(out.losses, "prior_words"));
}

TEST(SemanticCodebookTest, PseudoLikelihoodIsNotCalledABound) {
  auto objective = Make(Small());
  const Batch batch = Images(2);
  Rig rig(*objective, batch, Codebook().Of(RandomCodes(2)), Text(batch));
  const NamedTensors metrics = rig.Compute().metrics;
  EXPECT_TRUE(Has(metrics, "pseudo_bound"));
  EXPECT_FALSE(Has(metrics, "bound"));
}

// The vectors that are decoded are then mixtures, of no code.
TEST(SemanticCodebookTest, RelaxedCodesGiveNoBound) {
  World relaxed;
  relaxed.exact_codes = false;
  const Batch batch = Images(2);
  for (const auto& [prior, name] :
       {std::pair{Config::AUTOREGRESSIVE, "relaxed_bound"},
        {Config::UNIFORM, "relaxed_bound"},
        {Config::PSEUDO_LIKELIHOOD, "pseudo_bound"}}) {
    auto objective = Make(Small(prior), relaxed);
    Rig rig(*objective, batch, Codebook().Of(RandomCodes(2)), Text(batch));
    const NamedTensors metrics = rig.Compute().metrics;
    EXPECT_TRUE(Has(metrics, name)) << name;
    EXPECT_FALSE(Has(metrics, "bound")) << name;
  }
}

// One position hidden at a time, over many draws, against the same conditionals
// asked for one by one through draws that happen to hide them.
TEST(SemanticCodebookTest, HidesWhatItPredictsAndNothingElse) {
  Config config = Small();
  config.set_hidden_codes(0);
  config.set_hidden_words(0);
  auto objective = Make(config);
  at::NoGradGuard no_grad;
  Codebook codebook;
  const Batch batch = Images(1);
  const at::Tensor text = Text(batch);
  const at::Tensor codes = at::tensor({0, 1, 2, 1}).unsqueeze(0);
  std::set<std::string> seen_codes, seen_words;
  double sum = 0;
  for (int64_t seed = 0; seed < 60; ++seed) {
    Rig rig(*objective, batch, codebook.Of(codes), text,
            {true, static_cast<uint64_t>(seed), 0});
    const ObjectiveOutput out = rig.Compute();
    const double ln_p = ValueOf(out.metrics, "ln_p_codes");
    sum += ln_p;
    seen_codes.insert(std::to_string(ln_p));
    seen_words.insert(std::to_string(ValueOf(out.metrics, "ln_p_words")));
  }
  // As many values as there are positions: every one is drawn.
  EXPECT_EQ(seen_codes.size(), static_cast<size_t>(kPatches));
  const int64_t words = batch.text_mask.sum().item<int64_t>() - 1;
  EXPECT_EQ(seen_words.size(), static_cast<size_t>(words));
  EXPECT_LT(sum, 0);

  // With everything hidden, codes are predicted from words alone: their own
  // values change the terms only through the targets' classes, and moving the
  // vectors changes nothing.
  config.set_hidden_codes(1);
  config.set_hidden_words(1);
  auto blind = Make(config);
  Rig before(*blind, batch, codebook.Of(codes), text);
  const double ln_p = ValueOf(before.Compute().metrics, "ln_p_codes");
  codebook.vectors += 1;
  Rig after(*blind, batch, codebook.Of(codes), text);
  const ObjectiveOutput moved = after.Compute();
  EXPECT_NEAR(ValueOf(moved.metrics, "ln_p_codes"), ln_p, 1e-12);
}

// The prior reads codes and words, never pixels nor the text encoder.
TEST(SemanticCodebookTest, ThePriorReadsCodesAndWordsOnly) {
  for (auto kind : {Config::PSEUDO_LIKELIHOOD, Config::AUTOREGRESSIVE}) {
    auto objective = Make(Small(kind));
    at::NoGradGuard no_grad;
    const Codebook codebook;
    const at::Tensor codes = RandomCodes(2);
    const auto prior = [&](const Batch& batch, const at::Tensor& text,
                           const at::Tensor& z) {
      Rig rig(*objective, batch, codebook.Of(z), text);
      const NamedTensors m = rig.Compute().metrics;
      return std::vector<double>{ValueOf(m, "ln_p_codes"),
                                 ValueOf(m, "ln_p_words")};
    };
    const Batch batch = Images(2);
    const at::Tensor text = Text(batch);
    const std::vector<double> start = prior(batch, text, codes);
    Batch other = batch;
    other.images = batch.images + 1;
    EXPECT_EQ(prior(other, text + 1, codes), start);
    other = batch;
    other.text_ids = batch.text_ids.clone();
    other.text_ids.select(1, 1).fill_(11);
    EXPECT_NE(prior(other, text, codes)[1], start[1]);
    EXPECT_NE(prior(batch, text, (codes + 1).remainder(kCodes)), start);
  }
}

TEST(SemanticCodebookTest, ThePriorShapesCodesUnlessToldNotTo) {
  for (auto kind : {Config::PSEUDO_LIKELIHOOD, Config::AUTOREGRESSIVE}) {
    for (const bool shapes : {true, false}) {
      Config config = Small(kind);
      config.set_prior_shapes_codes(shapes);
      auto objective = Make(config);
      const Batch batch = Images(3);
      QuantizedTokens codes = Codebook().Of(RandomCodes(3));
      codes.tokens = codes.tokens.detach();
      codes.quantized.vectors.requires_grad_();
      Rig rig(*objective, batch, codes, Text(batch));
      for (const auto& [name, loss] : rig.Compute().losses) {
        if (name == "prior_words") loss.backward();
      }
      EXPECT_EQ(codes.quantized.vectors.grad().defined(), shapes);
      if (shapes) {
        EXPECT_GT(codes.quantized.vectors.grad().abs().sum().item<double>(), 0);
      }
    }
  }
}

TEST(SemanticCodebookTest, GradientsAreRight) {
  for (auto kind :
       {Config::PSEUDO_LIKELIHOOD, Config::AUTOREGRESSIVE, Config::UNIFORM}) {
    Config config = Small(kind);
    config.set_kl_weight(1.3);
    config.set_words_weight(0.6);
    config.set_reconstruction_weight(0.2);
    auto objective = Make(config);
    const Batch batch = Images(2);
    const at::Tensor codes = RandomCodes(2);
    std::vector<at::Tensor> inputs = {
        at::randn({2, kPatches, kVectorDim}, at::kDouble),
        at::randn({2, kPatches, kTokenDim}, at::kDouble), Text(batch),
        at::randn({2, kPatches, kCodes}, at::kDouble)};
    for (const auto& p : objective->named_parameters()) {
      if (p.value().numel() <= 16) inputs.push_back(p.value());
    }
    for (at::Tensor& x : inputs) x.requires_grad_();
    const absl::Status status = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& x) {
          QuantizedTokens q;
          q.quantized.codes = codes.unsqueeze(-1);
          q.quantized.vectors = x[0];
          q.tokens = x[1];
          q.quantized.assignment = at::softmax(x[3], -1);
          q.quantized.entropy = CategoricalEntropy(*q.quantized.assignment);
          Rig rig(*objective, batch, q, x[2]);
          std::vector<at::Tensor> losses;
          for (const auto& [name, loss] : rig.Compute().losses)
            losses.push_back(loss);
          EXPECT_EQ(losses.size(), kind == Config::UNIFORM ? 3u : 4u);
          return at::stack(losses);
        },
        inputs);
    EXPECT_TRUE(status.ok()) << Config::Prior_Name(kind) << ": " << status;
  }
}

TEST(SemanticCodebookTest, GroupsMultiply) {
  World world;
  world.codes_per_group = {3, 4};
  Config config = Small(Config::UNIFORM);
  auto objective = Make(config, world);
  const Batch batch = Images(2);
  QuantizedTokens q = Codebook().Of(RandomCodes(2));
  q.quantized.codes =
      at::cat({q.quantized.codes, at::randint(4, {2, kPatches, 1})}, -1);
  Rig uniform(*objective, batch, q, Text(batch));
  EXPECT_NEAR(ValueOf(uniform.Compute().metrics, "ln_p_codes"),
              -kPatches * std::log(12.0), 1e-9);
  // A group that a training step leaves out says nothing.
  QuantizedTokens dropped = q;
  dropped.quantized.codes = q.quantized.codes.clone();
  dropped.quantized.codes.select(2, 1).fill_(-1);
  Rig left_out(*objective, batch, dropped, Text(batch));
  EXPECT_NEAR(ValueOf(left_out.Compute().metrics, "ln_p_codes"),
              -kPatches * std::log(3.0), 1e-9);

  auto prior = Make(Small(Config::AUTOREGRESSIVE), world);
  Rig rig(*prior, batch, q, Text(batch));
  const double both = ValueOf(rig.Compute().metrics, "ln_p_codes");
  at::NoGradGuard no_grad;
  for (at::Tensor p : {prior->named_parameters()["prior.heads.1.weight"],
                       prior->named_parameters()["prior.heads.1.bias"]}) {
    p.zero_();
  }
  Rig flat(*prior, batch, q, Text(batch));
  // Group 1 is now uniform; what is left is group 0's.
  const double first =
      ValueOf(flat.Compute().metrics, "ln_p_codes") + kPatches * std::log(4.0);
  EXPECT_LT(first, 0);
  EXPECT_NE(both, first);
}

TEST(SemanticCodebookTest, FixedFeaturesAreATarget) {
  for (const bool normalize : {true, false}) {
    Config config = Small(Config::UNIFORM);
    config.set_target(Config::FEATURES);
    config.set_target_encoder("fixed");
    config.set_normalize_features(normalize);
    auto objective = Make(config);
    const Batch batch = Images(2);
    Rig rig(*objective, batch, Codebook().Of(RandomCodes(2)), Text(batch));
    Tokens features;
    features.values = at::randn({2, 1 + kPatches, 7}, at::kDouble);
    features.values.requires_grad_();
    features.has_cls = true;
    features.grid = {2, 2};
    rig.forward->Set(ImageKey("fixed", kTokens), features);
    const ObjectiveOutput out = rig.Compute();
    at::Tensor target = features.values.detach().narrow(1, 1, kPatches);
    if (normalize) target = target / target.norm(2, -1, true);
    const at::Tensor decoded =
        rig.forward->Get<at::Tensor>(ImageKey("bound", "decoded_patches"));
    EXPECT_NEAR(
        ValueOf(out.metrics, "ln_p_x"),
        GaussianLogLikelihood(decoded, target, 0.8).mean().item<double>(),
        1e-9);
    SumOf(out.losses).backward();
    EXPECT_FALSE(features.values.grad().defined());

    features.grid = {1, 4};
    Rig wrong(*objective, batch, Codebook().Of(RandomCodes(2)), Text(batch));
    wrong.forward->Set(ImageKey("fixed", kTokens), features);
    EXPECT_THROW(wrong.Compute(), c10::Error);
  }
}

// A target that moves would follow the codes: the contract demands a frozen
// one.
TEST(SemanticCodebookTest, AsksForATargetThatStaysFixed) {
  Config config = Small();
  config.set_target(Config::FEATURES);
  config.set_target_encoder("fixed");
  const Contract contract = SemanticCodebookContract("bound", config, {});
  int fixed = 0;
  for (const NeededView& need : contract.needs) {
    if (need.field == "target_encoder") fixed += need.needs_fixed;
    if (need.field == "quantizer") {
      EXPECT_TRUE(need.needs_codes);
    }
  }
  EXPECT_EQ(fixed, 1);
}

TEST(SemanticCodebookTest, ReportsTheEstimatorsOwnLosses) {
  auto objective = Make(Small());
  const Batch batch = Images(2);
  QuantizedTokens q = Codebook().Of(RandomCodes(2));
  q.quantized.losses = {{"commitment", at::full({}, 0.25, at::kDouble)}};
  Rig rig(*objective, batch, q, Text(batch));
  const ObjectiveOutput out = rig.Compute();
  EXPECT_EQ(ValueOf(out.metrics, "auxiliary_commitment"), 0.25);
  EXPECT_FALSE(Has(out.losses, "auxiliary_commitment"));
}

TEST(SemanticCodebookTest, DrawsDoNotDependOnTheBatch) {
  auto objective = Make(Small());
  at::NoGradGuard no_grad;
  const Codebook codebook;
  const Batch batch = Images(2);
  const at::Tensor text = Text(batch), codes = RandomCodes(2);
  Rig both(*objective, batch, codebook.Of(codes), text);
  const NamedTensors together = both.Compute().metrics;
  double apart = 0;
  for (int64_t b = 0; b < 2; ++b) {
    Batch one = batch;
    one.images = batch.images.narrow(0, b, 1);
    one.text_ids = batch.text_ids.narrow(0, b, 1);
    one.text_mask = batch.text_mask.narrow(0, b, 1);
    one.text_to_image = at::zeros({1}, at::kLong);
    one.image_ids = {batch.image_ids[b]};
    one.sample_numbers = {batch.sample_numbers[b]};
    Rig rig(*objective, one, codebook.Of(codes.narrow(0, b, 1)),
            text.narrow(0, b, 1));
    apart += ValueOf(rig.Compute().metrics, "pseudo_bound") / 2;
  }
  EXPECT_NEAR(ValueOf(together, "pseudo_bound"), apart, 1e-9);
}

TEST(SemanticCodebookTest, RefusesBadConfigs) {
  EXPECT_TRUE(ValidateSemanticCodebook(Config()).ok());
  using Change = void (*)(Config&);
  const std::vector<std::pair<std::string, Change>> bad = {
      {"quantizer", [](Config& c) { c.set_quantizer(""); }},
      {"text", [](Config& c) { c.set_text(""); }},
      {"patch_size", [](Config& c) { c.set_patch_size(0); }},
      {"target_encoder", [](Config& c) { c.set_target(Config::FEATURES); }},
      {"target_encoder", [](Config& c) { c.set_target_encoder("x"); }},
      {"sigma", [](Config& c) { c.set_sigma(0); }},
      {"sigma", [](Config& c) { c.set_sigma(std::nan("")); }},
      {"decoder_dim", [](Config& c) { c.set_decoder_dim(0); }},
      {"decoder_heads", [](Config& c) { c.set_decoder_heads(3); }},
      {"prior_depth", [](Config& c) { c.set_prior_depth(0); }},
      {"prior_heads", [](Config& c) { c.set_prior_heads(-1); }},
      {"hidden_codes", [](Config& c) { c.set_hidden_codes(1.1); }},
      {"hidden_words", [](Config& c) { c.set_hidden_words(-0.1); }},
      {"kl_weight", [](Config& c) { c.set_kl_weight(-1); }},
      {"words_weight", [](Config& c) { c.set_words_weight(INFINITY); }}};
  for (const auto& [field, change] : bad) {
    Config config;
    change(config);
    const absl::Status status = ValidateSemanticCodebook(config);
    EXPECT_EQ(status.message().substr(0, field.size() + 1), field + ":")
        << status;
  }
  Config config = Small();
  config.set_patch_size(3);
  EXPECT_NE(TryMake(config).status().message().find("does not divide"),
            std::string::npos);
  World wordless;
  wordless.vocab = 0;
  EXPECT_EQ(TryMake(Small(), wordless).status().code(),
            absl::StatusCode::kFailedPrecondition);
  World codeless;
  codeless.codes_per_group = {};
  EXPECT_NE(TryMake(Small(), codeless).status().message().find("no codes"),
            std::string::npos);
}

}  // namespace
}  // namespace semvq
