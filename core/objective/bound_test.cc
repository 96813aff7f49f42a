// The statements of docs/method.md about the bound, on models so small that
// ln p(x, y) is a sum one can write out. The functions are those that the
// objective semantic_codebook calls.
#include "core/objective/bound.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/nn/testing.h"

namespace semvq {
namespace {

at::Tensor Scalar(double value) { return at::full({}, value, at::kDouble); }

// p(y, z) as a table over captions and all K^N settings of the codes, and
// p(x | z, y) a Gaussian around a table of means.
struct Model {
  // Random parameters: N codes of K each, captions of L words out of V, images
  // of D values. `peaked` scales the log-odds of the prior.
  Model(int64_t n, int64_t k, int64_t v, int64_t l, int64_t d, double sigma,
        double peaked = 1.0)
      : positions(n), codes(k), sigma(sigma) {
    settings = static_cast<int64_t>(std::llround(std::pow(k, n)));
    captions = static_cast<int64_t>(std::llround(std::pow(v, l)));
    log_prior = at::log_softmax(
                    peaked * at::randn({captions * settings}, at::kDouble), 0)
                    .view({captions, settings});
    means = at::randn({captions, settings, d}, at::kDouble);
  }

  at::Tensor LogLikelihood(const at::Tensor& x, int64_t y) const {
    return GaussianLogLikelihood(means[y], x.expand_as(means[y]), sigma);
  }
  // ln p(x, y, z) for every z, [settings].
  at::Tensor LogJoint(const at::Tensor& x, int64_t y) const {
    return LogLikelihood(x, y) + log_prior[y];
  }
  double LogEvidence(const at::Tensor& x, int64_t y) const {
    return LogJoint(x, y).logsumexp(0).item<double>();
  }
  at::Tensor Posterior(const at::Tensor& x, int64_t y) const {
    return at::softmax(LogJoint(x, y), 0);
  }

  // The terms for q [settings], any distribution over the codes' settings; the
  // prior split as ln p(z | y) + ln p(y).
  BoundTerms Terms(const at::Tensor& x, int64_t y, const at::Tensor& q) const {
    const at::Tensor log_p_y = log_prior[y].logsumexp(0, /*keepdim=*/true);
    BoundTerms terms;
    terms.reconstruction = ExpectedLogProbability(
        LogLikelihood(x, y).unsqueeze(0), {}, q.unsqueeze(0));
    terms.prior_codes = ExpectedLogProbability(
        (log_prior[y] - log_p_y).unsqueeze(0), {}, q.unsqueeze(0));
    terms.prior_words = log_p_y;
    terms.entropy = CategoricalEntropy(q.unsqueeze(0));
    return terms;
  }
  double BoundOf(const at::Tensor& x, int64_t y, const at::Tensor& q,
                 const BoundWeights& weights = {}) const {
    return Bound(Terms(x, y, q), weights).item<double>();
  }

  int64_t positions, codes;
  double sigma;
  int64_t settings = 0, captions = 0;
  at::Tensor log_prior;  // [captions, settings], sums to 1 in all.
  at::Tensor means;      // [captions, settings, D]
};

at::Tensor OneHot(int64_t index, int64_t size) {
  at::Tensor q = at::zeros({size}, at::kDouble);
  q[index] = 1;
  return q;
}

// Distributions over the settings: any, nearly hard, hard, and one that is a
// product over the positions, as an encoder's is.
std::vector<at::Tensor> SomeQ(const Model& m) {
  std::vector<at::Tensor> all = {
      at::softmax(at::randn({m.settings}, at::kDouble), 0),
      at::softmax(20 * at::randn({m.settings}, at::kDouble), 0),
      OneHot(at::randint(m.settings, {}).item<int64_t>(), m.settings)};
  at::Tensor product = at::ones({1}, at::kDouble);
  for (int64_t n = 0; n < m.positions; ++n) {
    const at::Tensor own = at::softmax(at::randn({m.codes}, at::kDouble), 0);
    product = (product.unsqueeze(1) * own.unsqueeze(0)).flatten();
  }
  all.push_back(product);
  return all;
}

std::vector<Model> SomeModels() {
  std::vector<Model> models;
  for (int64_t n = 1; n <= 3; ++n) {
    for (int64_t k = 2; k <= 4; ++k) {
      for (double sigma : {0.3, 1.0, 2.5})
        models.emplace_back(n, k, /*v=*/3, /*l=*/2, /*d=*/2, sigma, 2.0);
    }
  }
  return models;
}

TEST(BoundTest, HoldsForAnyParametersAndAnyQ) {
  at::manual_seed(1);
  for (const Model& m : SomeModels()) {
    for (int64_t y = 0; y < m.captions; y += 2) {
      const at::Tensor x = at::randn({2}, at::kDouble);
      const double exact = m.LogEvidence(x, y);
      for (const at::Tensor& q : SomeQ(m)) {
        EXPECT_LE(m.BoundOf(x, y, q), exact + 1e-10);
      }
    }
  }
}

TEST(BoundTest, IsEqualAtThePosteriorAndTheGapIsTheDivergenceFromIt) {
  at::manual_seed(2);
  for (const Model& m : SomeModels()) {
    const at::Tensor x = at::randn({2}, at::kDouble);
    const double exact = m.LogEvidence(x, 1);
    const at::Tensor posterior = m.Posterior(x, 1);
    EXPECT_NEAR(m.BoundOf(x, 1, posterior), exact, 1e-9);
    for (const at::Tensor& q : SomeQ(m)) {
      double divergence = 0;
      const at::Tensor log_posterior = at::log_softmax(m.LogJoint(x, 1), 0);
      for (int64_t z = 0; z < m.settings; ++z) {
        const double p = q[z].item<double>();
        if (p > 0) {
          divergence += p * (std::log(p) - log_posterior[z].item<double>());
        }
      }
      EXPECT_NEAR(exact - m.BoundOf(x, 1, q), divergence,
                  1e-9 * (1 + divergence));
    }
  }
}

// A data set of pairs.
struct Pairs {
  Pairs(int64_t count, int64_t captions)
      : x(1.5 * at::randn({count, 2}, at::kDouble)) {
    for (int64_t i = 0; i < count; ++i)
      y.push_back(at::randint(captions, {}).item<int64_t>());
  }
  double LogEvidence(const Model& m) const {
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i)
      sum += m.LogEvidence(x[static_cast<int64_t>(i)], y[i]);
    return sum;
  }
  at::Tensor x;
  std::vector<int64_t> y;
};

// The parameters that maximise the sum of the bounds at fixed q: shares, and
// weighted means. Returns that sum before and after.
std::pair<double, double> Maximise(Model& m, const Pairs& data,
                                   const std::vector<at::Tensor>& q) {
  at::Tensor mass = at::zeros_like(m.log_prior);
  at::Tensor sums = at::zeros_like(m.means);
  const auto total = [&] {
    double sum = 0;
    for (size_t i = 0; i < q.size(); ++i)
      sum += m.BoundOf(data.x[static_cast<int64_t>(i)], data.y[i], q[i]);
    return sum;
  };
  const double before = total();
  for (size_t i = 0; i < q.size(); ++i) {
    mass[data.y[i]] += q[i];
    sums[data.y[i]] +=
        q[i].unsqueeze(1) * data.x[static_cast<int64_t>(i)].unsqueeze(0);
  }
  // Floor: a setting that no q uses keeps its mean, and ln p stays finite.
  m.log_prior = (mass / mass.sum()).clamp_min(1e-300).log();
  m.means = at::where(mass.unsqueeze(-1) > 1e-12,
                      sums / mass.unsqueeze(-1).clamp_min(1e-12), m.means);
  return {before, total()};
}

TEST(BoundTest, SoftEmNeverLowersTheEvidence) {
  for (int seed = 0; seed < 10; ++seed) {
    at::manual_seed(seed);
    Model m(2, 3, 2, 1, 2, 0.7);
    const Pairs data(12, m.captions);
    double evidence = data.LogEvidence(m);
    const double start = evidence;
    for (int step = 0; step < 25; ++step) {
      std::vector<at::Tensor> q;
      for (size_t i = 0; i < data.y.size(); ++i)
        q.push_back(m.Posterior(data.x[static_cast<int64_t>(i)], data.y[i]));
      const auto [before, after] = Maximise(m, data, q);
      EXPECT_NEAR(before, evidence, 1e-8);
      EXPECT_GE(after, before - 1e-9);
      const double next = data.LogEvidence(m);
      EXPECT_GE(next, after - 1e-9);
      evidence = next;
    }
    EXPECT_GT(evidence, start + 1);
  }
}

// All mass on the best code: the bound goes up, the evidence need not.
TEST(BoundTest, HardEmMayLowerTheEvidence) {
  int lowered = 0;
  for (int seed = 0; seed < 50; ++seed) {
    at::manual_seed(seed);
    Model m(1, 3, 1, 1, 2, 1.5);
    const Pairs data(6, m.captions);
    double evidence = data.LogEvidence(m);
    for (int step = 0; step < 5; ++step) {
      std::vector<at::Tensor> q;
      for (size_t i = 0; i < data.y.size(); ++i) {
        const int64_t best =
            m.LogJoint(data.x[static_cast<int64_t>(i)], data.y[i])
                .argmax()
                .item<int64_t>();
        q.push_back(OneHot(best, m.settings));
      }
      const auto [before, after] = Maximise(m, data, q);
      EXPECT_GE(after, before - 1e-9);
      EXPECT_LE(after, data.LogEvidence(m) + 1e-9);
      const double next = data.LogEvidence(m);
      lowered += next < evidence - 1e-6;
      evidence = next;
    }
  }
  EXPECT_GT(lowered, 0) << "no counterexample among the seeds";
}

// One q for two images cannot be both posteriors.
TEST(BoundTest, SharedQLeavesAGapWhereverPosteriorsDiffer) {
  at::manual_seed(3);
  const Model m(2, 3, 1, 1, 2, 0.5);
  const at::Tensor a = at::randn({2}, at::kDouble), b = a + 1.0;
  // KL(q || a) + KL(q || b) is least for the normalised geometric mean.
  const at::Tensor best =
      at::softmax((m.Posterior(a, 0).log() + m.Posterior(b, 0).log()) / 2, 0);
  const double gap = m.LogEvidence(a, 0) - m.BoundOf(a, 0, best) +
                     m.LogEvidence(b, 0) - m.BoundOf(b, 0, best);
  EXPECT_GT(gap, 0.01);
  for (const at::Tensor& q : SomeQ(m)) {
    EXPECT_GT(m.LogEvidence(a, 0) - m.BoundOf(a, 0, q) + m.LogEvidence(b, 0) -
                  m.BoundOf(b, 0, q),
              gap);
  }
}

// Without caption, one-hot q, uniform prior: squared error / (2 sigma^2) +
// N ln K + const.
TEST(BoundTest, VqVaeIsTheSpecialCase) {
  at::manual_seed(4);
  const int64_t n = 3, k = 4, d = 5;
  for (double sigma : {0.2, 1.0, 3.0}) {
    const at::Tensor image = at::randn({2, n, d}, at::kDouble);
    const at::Tensor decoded = at::randn({2, n, d}, at::kDouble);
    const at::Tensor codes = at::randint(k, {2, n});
    const at::Tensor uniform =
        at::full({2, n, k}, -std::log(static_cast<double>(k)), at::kDouble);
    BoundTerms terms;
    terms.reconstruction = GaussianLogLikelihood(decoded, image, sigma);
    terms.prior_codes = ExpectedLogProbability(uniform, codes).sum(-1);
    terms.entropy =
        CategoricalEntropy(at::one_hot(codes, k).to(at::kDouble)).sum(-1);
    for (int64_t b = 0; b < 2; ++b) {
      const double squared =
          (image[b] - decoded[b]).square().sum().item<double>();
      EXPECT_NEAR(-Bound(terms)[b].item<double>(),
                  squared / (2 * sigma * sigma) + n * std::log(k) +
                      n * d * std::log(sigma * std::sqrt(2 * M_PI)),
                  1e-9);
    }
  }
}

TEST(BoundTest, KlWeightsOfOneOrMoreKeepTheBoundSmallerOnesDoNot) {
  at::manual_seed(5);
  BoundWeights weights;
  for (const Model& m : SomeModels()) {
    const at::Tensor x = at::randn({2}, at::kDouble);
    for (const at::Tensor& q : SomeQ(m)) {
      double last = m.LogEvidence(x, 0) + 1e-10;
      for (double kl : {1.0, 1.5, 4.0, 100.0}) {
        weights.kl = kl;
        const double bound = m.BoundOf(x, 0, q, weights);
        EXPECT_LE(bound, last);
        last = bound + 1e-10;
      }
    }
  }
  // One code decodes x well, and is rare: half of what that costs is forgiven.
  Model m(1, 2, 1, 1, 2, 0.5);
  m.log_prior = at::tensor({0.01, 0.99}, at::kDouble).log().view({1, 2});
  m.means = at::tensor({0.0, 0.0, 3.0, 3.0}, at::kDouble).view({1, 2, 2});
  const at::Tensor x = at::zeros({2}, at::kDouble);
  weights.kl = 0.5;
  EXPECT_GT(m.BoundOf(x, 0, OneHot(0, 2), weights), m.LogEvidence(x, 0) + 1);
}

// The codes are copies of the caption, or nearly: each is sure given the other,
// and what they say together counts twice.
TEST(BoundTest, PseudoLikelihoodIsNoBound) {
  Model m(1, 2, 2, 1, 2, 1.0);
  m.log_prior =
      at::tensor({0.49, 0.01, 0.01, 0.49}, at::kDouble).log().view({2, 2});
  m.means = at::zeros({2, 2, 2}, at::kDouble);
  const at::Tensor x = at::zeros({2}, at::kDouble);
  BoundTerms terms = m.Terms(x, 0, OneHot(0, 2));
  EXPECT_LE(Bound(terms).item<double>(), m.LogEvidence(x, 0));
  terms.prior_codes = at::log_softmax(m.log_prior, 1)[0][0].unsqueeze(0);
  terms.prior_words = at::log_softmax(m.log_prior, 0)[0][0].unsqueeze(0);
  EXPECT_GT(Bound(terms).item<double>(), m.LogEvidence(x, 0) + 0.5);
}

// The averages of VQ-EMA follow the features, not the bound: here codes decode
// to themselves, features are off by a constant, and each update makes the
// decoded image worse while it lowers the quantisation error.
TEST(BoundTest, AnEmaUpdateMayLowerTheBound) {
  const at::Tensor x =
      at::tensor({1.0, 1.0, -1.0, -1.0}, at::kDouble).view({2, 1, 2});
  const at::Tensor features = x + 0.5;
  at::Tensor codebook = x.squeeze(1).clone();
  double bound = 0, error = 1e9;
  for (int step = 0; step < 4; ++step) {
    BoundTerms terms;
    terms.reconstruction =
        GaussianLogLikelihood(codebook.unsqueeze(1), x, /*sigma=*/0.5);
    const double now = Bound(terms).sum().item<double>();
    const double distance =
        (features.squeeze(1) - codebook).square().sum().item<double>();
    if (step > 0) {
      EXPECT_LT(now, bound);
      EXPECT_LT(distance, error);
    }
    bound = now;
    error = distance;
    codebook = 0.8 * codebook + 0.2 * features.squeeze(1);
  }
}

TEST(BoundTest, WeightsAreThoseOfTheNamedTerms) {
  BoundTerms terms;
  terms.reconstruction = Scalar(1);
  terms.prior_codes = Scalar(10);
  terms.entropy = Scalar(100);
  EXPECT_EQ(Bound(terms).item<double>(), 111);
  terms.prior_words = Scalar(1000);
  const BoundWeights weights{2, 3, 4};
  EXPECT_EQ(Bound(terms, weights).item<double>(), 2 + 30 + 300 + 4000);
  const NamedTensors named = WeightedTerms(terms, weights);
  ASSERT_EQ(named.size(), 4u);
  EXPECT_EQ(named[1].first, "prior_codes");
  EXPECT_EQ(named[1].second.item<double>(), 30);
}

TEST(BoundTest, ExpectationsAreSumsOverCodes) {
  const at::Tensor log_p =
      at::log_softmax(at::randn({2, 3, 4}, at::kDouble), -1);
  const at::Tensor q = at::softmax(at::randn({2, 3, 4}, at::kDouble), -1);
  at::Tensor codes = at::randint(4, {2, 3});
  codes[1][2] = -1;  // Not valid.
  const at::Tensor hard = ExpectedLogProbability(log_p, codes);
  const at::Tensor soft = ExpectedLogProbability(log_p, codes, q);
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t n = 0; n < 3; ++n) {
      const int64_t code = codes[b][n].item<int64_t>();
      double sum = 0;
      for (int64_t k = 0; k < 4; ++k) {
        sum += q[b][n][k].item<double>() * log_p[b][n][k].item<double>();
      }
      EXPECT_NEAR(soft[b][n].item<double>(), code < 0 ? 0 : sum, 1e-12);
      EXPECT_EQ(hard[b][n].item<double>(),
                code < 0 ? 0 : log_p[b][n][code].item<double>());
    }
  }
  EXPECT_NEAR(
      CategoricalEntropy(at::full({8}, 0.125, at::kDouble)).item<double>(),
      std::log(8), 1e-12);
  EXPECT_EQ(CategoricalEntropy(OneHot(1, 3)).item<double>(), 0);
}

// Averaged over what may be drawn, the estimate is the sum over all positions.
TEST(BoundTest, DrawnPositionsEstimateTheSumWithoutBias) {
  const int64_t n = 5;
  const at::Tensor values = at::randn({n}, at::kDouble);
  const at::Tensor total = at::tensor({n}, at::kLong);
  const at::Tensor one = at::ones({1, 1}, at::kBool);
  const at::Tensor two = at::ones({1, 2}, at::kBool);
  double singles = 0, doubles = 0;
  int count = 0;
  for (int64_t i = 0; i < n; ++i) {
    singles +=
        SumFromDrawn(values[i].view({1, 1}), one, total).item<double>() / n;
    for (int64_t j = 0; j < i; ++j, ++count) {
      doubles += SumFromDrawn(at::stack({values[i], values[j]}).unsqueeze(0),
                              two, total)
                     .item<double>();
    }
  }
  const double exact = values.sum().item<double>();
  EXPECT_NEAR(singles, exact, 1e-12);
  EXPECT_NEAR(doubles / count, exact, 1e-12);
  // What is not valid does not count; nothing drawn is nothing.
  EXPECT_NEAR(SumFromDrawn(
                  values.view({1, n}),
                  at::tensor({1, 0, 1, 0, 0}).to(at::kBool).view({1, n}), total)
                  .item<double>(),
              n * (values[0] + values[2]).item<double>() / 2, 1e-12);
  EXPECT_EQ(SumFromDrawn(values.view({1, n}), at::zeros({1, n}, at::kBool),
                         at::zeros({1}, at::kLong))
                .item<double>(),
            0);
}

TEST(BoundTest, GradientsAreRight) {
  at::manual_seed(6);
  const at::Tensor codes = at::tensor({0, 2, -1}, at::kLong).view({1, 3});
  const auto check = [](const TensorFunction& fn,
                        std::vector<at::Tensor> inputs) {
    for (at::Tensor& x : inputs) x.requires_grad_();
    const absl::Status status = NumericGradientCheck(fn, inputs);
    EXPECT_TRUE(status.ok()) << status;
  };
  check([](const auto& x) { return GaussianLogLikelihood(x[0], x[1], 0.7); },
        {at::randn({2, 3, 2}, at::kDouble), at::randn({2, 3, 2}, at::kDouble)});
  check(
      [&codes](const auto& x) {
        const at::Tensor log_p = at::log_softmax(x[0], -1);
        return ExpectedLogProbability(log_p, codes) +
               ExpectedLogProbability(log_p, codes, at::softmax(x[1], -1)) +
               CategoricalEntropy(at::softmax(x[1], -1));
      },
      {at::randn({1, 3, 4}, at::kDouble), at::randn({1, 3, 4}, at::kDouble)});
  check(
      [](const auto& x) {
        return SumFromDrawn(x[0], at::tensor({1, 0}).to(at::kBool).view({1, 2}),
                            at::tensor({3}, at::kLong));
      },
      {at::randn({1, 2}, at::kDouble)});
  check(
      [](const auto& x) {
        return Bound({x[0], x[1], x[2], x[3]}, {2, 3, 4});
      },
      {at::randn({2}, at::kDouble), at::randn({2}, at::kDouble),
       at::randn({2}, at::kDouble), at::randn({2}, at::kDouble)});
}

}  // namespace
}  // namespace semvq
