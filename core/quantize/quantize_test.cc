#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/distributed/testing.h"
#include "core/nn/testing.h"
#include "core/quantize/code_history.h"
#include "core/quantize/code_metrics.h"
#include "core/quantize/codebook.h"
#include "core/quantize/draws.h"
#include "core/quantize/estimators.h"
#include "core/quantize/rows.h"
#include "core/quantize/soft_codes.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

// Rows of this process alone.
ShardedRows Own(const at::Tensor& rows) {
  return ShardedRows::Equal(rows, nullptr);
}

at::Tensor Gradient(at::Tensor (*estimator)(const at::Tensor&,
                                            const at::Tensor&),
                    const at::Tensor& features, const at::Tensor& vectors,
                    const at::Tensor& upstream) {
  at::Tensor z = features.clone().requires_grad_();
  const at::Tensor out = estimator(z, vectors);
  EXPECT_TRUE(at::equal(out, vectors));
  (out * upstream).sum().backward();
  return z.grad();
}

TEST(EstimatorsTest, StraightThroughCopiesTheGradient) {
  at::manual_seed(1);
  for (at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor z = at::randn({5, 7, 4}, type) * 1e3;
    const at::Tensor q = at::randn({5, 7, 4}, type);
    const at::Tensor up = at::randn({5, 7, 4}, type);
    EXPECT_TRUE(at::equal(Gradient(StraightThrough, z, q, up), up));
  }
}

TEST(EstimatorsTest, FeaturesThatAreNotFiniteShow) {
  at::Tensor z = at::randn({3, 2});
  z[1][0] = std::numeric_limits<float>::infinity();
  z[2][1] = std::nan("");
  const at::Tensor q = at::ones({3, 2});
  for (const auto& estimator : {StraightThrough, RotationTrick}) {
    const at::Tensor out = estimator(z, q);
    EXPECT_TRUE(at::equal(out[0], q[0]));
    EXPECT_TRUE(out[1][0].isnan().item<bool>());
    EXPECT_TRUE(out[2][1].isnan().item<bool>());
  }
}

TEST(EstimatorsTest, RotationMapsFeaturesToVectors) {
  at::manual_seed(2);
  const at::Tensor z = at::randn({20, 6}, at::kDouble);
  const at::Tensor q = at::randn({20, 6}, at::kDouble);
  const at::Tensor up = at::randn({20, 6}, at::kDouble);
  const at::Tensor grad = Gradient(RotationTrick, z, q, up);
  // The map z -> q is a rotation R times |q|/|z|, so <R'u, z> = <u, R z> = <u,
  // q>, and lengths change by that factor alone.
  EXPECT_TRUE(at::allclose((grad * z).sum(1), (up * q).sum(1)));
  EXPECT_TRUE(at::allclose(grad.norm(2, 1),
                           up.norm(2, 1) * q.norm(2, 1) / z.norm(2, 1)));
  // Angles to the vector become angles to the feature.
  EXPECT_TRUE(at::allclose((grad * z).sum(1) / grad.norm(2, 1) / z.norm(2, 1),
                           (up * q).sum(1) / up.norm(2, 1) / q.norm(2, 1)));
}

TEST(EstimatorsTest, RotationIsDefinedEverywhere) {
  const at::Tensor up = at::tensor({0.3, -2.0, 1.0}, at::kFloat).view({1, 3});
  const at::Tensor x = at::tensor({1.0, 2.0, -1.0}, at::kFloat).view({1, 3});
  const at::Tensor zero = at::zeros({1, 3});
  // No direction at all, and opposite directions: straight-through.
  EXPECT_TRUE(at::equal(Gradient(RotationTrick, zero, x, up), up));
  EXPECT_TRUE(at::equal(Gradient(RotationTrick, x, -x, up), up));
  EXPECT_TRUE(at::equal(Gradient(RotationTrick, x, zero, up), zero));
  EXPECT_TRUE(at::allclose(Gradient(RotationTrick, x, x, up), up, 1e-5, 1e-6));
  for (double scale : {1e-30, 1e30}) {
    const at::Tensor grad = Gradient(RotationTrick, x * scale, x * scale, up);
    EXPECT_TRUE(at::allclose(grad, up, 1e-5, 1e-6)) << scale;
  }
}

TEST(EstimatorsTest, MixtureGradient) {
  at::manual_seed(6);
  const at::Tensor codebook = at::randn({4, 3});
  const at::Tensor up = at::randn({2, 3});
  at::Tensor p = at::softmax(at::randn({2, 4}), 1).requires_grad_();
  const at::Tensor vectors = codebook.narrow(0, 1, 2);
  const at::Tensor out = WithMixtureGradient(vectors, p, codebook);
  EXPECT_TRUE(at::equal(out, vectors));
  (out * up).sum().backward();
  EXPECT_TRUE(at::allclose(p.grad(), at::matmul(up, codebook.t())));
}

TEST(DrawsTest, SchedulesAreHalfACosine) {
  EXPECT_EQ(CosineRamp(1, 0.5, 10, 0), 1);
  EXPECT_NEAR(CosineRamp(1, 0.5, 10, 5), 0.75, 1e-12);
  EXPECT_NEAR(CosineRamp(1, 0.5, 10, 2), 0.5 + 0.25 * (1 + std::cos(M_PI / 5)),
              1e-12);
  EXPECT_EQ(CosineRamp(1, 0.5, 10, 10), 0.5);
  EXPECT_EQ(CosineRamp(1, 0.5, 0, 0), 0.5);
}

TEST(DrawsTest, NoiseBelongsToTheImageWhereverItIs) {
  const at::Tensor z = at::zeros({2, 3, 4});
  QuantizeContext context;
  context.draw_keys = {7, 8};
  const auto noise = [&](const std::string& purpose) {
    return GumbelNoise(z, 5, purpose, "q", context).view({2, 3, 5});
  };
  const at::Tensor first = noise("p");
  EXPECT_EQ(first.scalar_type(), at::kDouble);
  EXPECT_FALSE(at::equal(first, noise("another")));
  context.step = 9;
  context.draw_keys = {8, 7};
  EXPECT_TRUE(at::equal(noise("p").flip(0), first));
  context.draw_keys = {8};
  EXPECT_THROW(noise("p"), c10::Error);

  // Without keys, by the place in the batch of all ranks.
  context.draw_keys.clear();
  const at::Tensor whole = noise("p");
  RunRanks(2, [&](Communicator& group) {
    QuantizeContext own = context;
    own.group = &group;
    EXPECT_TRUE(
        at::equal(GumbelNoise(z.narrow(0, 0, 1), 5, "p", "q", own).view({3, 5}),
                  whole[group.rank()]));
  });
  ++context.step;
  EXPECT_FALSE(at::equal(noise("p"), whole));
}

TEST(SoftCodesTest, EntropiesOfTheValidRows) {
  FeatureRows rows;
  const at::Tensor p =
      at::tensor({0.5, 0.5, 0.25, 0.75, 1.0, 0.0}, at::kDouble).view({3, 2});
  const auto h = [](double a) {
    return -a * std::log(a) - (1 - a) * std::log(1 - a);
  };
  // The last row would be of entropy 0 and change the mean.
  rows.valid = at::tensor({1, 1, 0}).to(at::kBool);
  const SoftCodes some(p.log(), rows);
  EXPECT_NEAR(some.MeanEntropy().item<double>(), (h(0.5) + h(0.25)) / 2, 1e-12);
  EXPECT_NEAR(some.EntropyOfMean().item<double>(), h(0.375), 1e-12);
  const FeatureRows every;
  const SoftCodes all(p.narrow(0, 0, 2).log(), every);
  EXPECT_NEAR(all.EntropyOfMean().item<double>(), h(0.375), 1e-12);
  rows.valid = at::zeros({3}, at::kBool);
  const SoftCodes none(p.clamp_min(1e-9).log(), rows);
  EXPECT_EQ(none.MeanEntropy().item<double>(), 0);
  EXPECT_EQ(none.EntropyOfMean().item<double>(), 0);
}

TEST(SoftCodesTest, OneSureCodeHasFiniteGradients) {
  const FeatureRows rows;
  at::Tensor logits = at::tensor({1e4, 0.0, -1e4, 1e4, 0.0, -1e4})
                          .view({2, 3})
                          .requires_grad_();
  const SoftCodes soft(logits, rows);
  const at::Tensor sum = soft.MeanEntropy() + soft.EntropyOfMean();
  EXPECT_EQ(sum.item<float>(), 0);
  sum.backward();
  EXPECT_TRUE(logits.grad().isfinite().all().item<bool>());
}

TEST(SoftCodesTest, Orthogonality) {
  at::manual_seed(7);
  const at::Tensor e = at::randn({9, 4}, at::kDouble);
  const at::Tensor unit = e / e.norm(2, 1, true);
  const at::Tensor cosines = at::matmul(unit, unit.t());
  EXPECT_NEAR(Orthogonality(e).item<double>(),
              cosines.square().mean().item<double>() - 1.0 / 9, 1e-12);
  EXPECT_NEAR(Orthogonality(at::eye(3, at::kDouble) * 5).item<double>(), 0,
              1e-12);
}

TEST(RowsTest, SquaredDistances) {
  at::manual_seed(6);
  const at::Tensor z = at::randn({5, 3}, at::kDouble).requires_grad_();
  const at::Tensor v = at::randn({5, 3}, at::kDouble).requires_grad_();
  const at::Tensor distances = SquaredDistances(z, v);
  EXPECT_TRUE(at::equal(distances, (z - v).square().sum(1)));
  distances.sum().backward();
  EXPECT_FALSE(v.grad().defined());
  const absl::Status checked = NumericGradientCheck(
      [&v](const std::vector<at::Tensor>& in) {
        return SquaredDistances(in[0], v);
      },
      {z});
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(CodeMetricsTest, Perplexity) {
  EXPECT_FLOAT_EQ(Perplexity(at::full({8}, 3, at::kLong)).item<float>(), 8);
  EXPECT_FLOAT_EQ(Perplexity(at::tensor({0, 5, 0}, at::kLong)).item<float>(),
                  1);
  EXPECT_FLOAT_EQ(Perplexity(at::zeros({4}, at::kLong)).item<float>(), 0);
  EXPECT_FLOAT_EQ(Perplexity(at::tensor({1, 3}, at::kLong)).item<float>(),
                  std::exp(-0.25 * std::log(0.25) - 0.75 * std::log(0.75)));
  EXPECT_FLOAT_EQ(UsedShare(at::tensor({0, 5, 1, 0}, at::kLong)).item<float>(),
                  0.5);
}

TEST(CodebookTest, UnitVectors) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({6, 5});
  for (double scale : {1e-35, 1.0, 1e30}) {
    EXPECT_TRUE(
        at::allclose(UnitVectors(x * scale).norm(2, 1), at::ones({6}), 1e-5));
  }
  at::Tensor zero = at::zeros({2, 3}).requires_grad_();
  const at::Tensor unit = UnitVectors(zero);
  EXPECT_TRUE(at::equal(unit, at::zeros({2, 3})));
  unit.sum().backward();
  EXPECT_TRUE(zero.grad().isfinite().all().item<bool>());
  const absl::Status checked = NumericGradientCheck(
      [](const std::vector<at::Tensor>& in) { return UnitVectors(in[0]); },
      {at::randn({4, 3}, at::kDouble).requires_grad_()});
  EXPECT_TRUE(checked.ok()) << checked;
}

TEST(CodebookTest, SmoothedCountsKeepTheirSum) {
  const at::Tensor counts = at::tensor({0.0, 1.0, 9.0}, at::kDouble);
  const at::Tensor smooth = SmoothedCounts(counts, 0.5);
  EXPECT_TRUE(at::allclose(
      smooth, at::tensor({0.5, 1.5, 9.5}, at::kDouble) / 11.5 * 10.0));
  EXPECT_NEAR(smooth.sum().item<double>(), 10.0, 1e-12);
}

TEST(CodebookTest, InitialCodes) {
  at::manual_seed(4);
  const at::Tensor z = at::randn({300, 4});
  const InitialCodes data = DataCodes(Own(z), 100, 7);
  const auto distances = (data.codes.unsqueeze(1) - z).abs().sum(2).min(1);
  EXPECT_EQ(std::get<0>(distances).max().item<float>(), 0);
  // Without replacement.
  EXPECT_EQ(std::get<0>(at::_unique(std::get<1>(distances))).size(0), 100);
  EXPECT_TRUE(at::equal(data.counts, at::full({100}, 3.0)));
  EXPECT_TRUE(at::equal(DataCodes(Own(z), 100, 7).codes, data.codes));
  EXPECT_FALSE(at::equal(DataCodes(Own(z), 100, 8).codes, data.codes));
  EXPECT_EQ(DataCodes(Own(z.narrow(0, 0, 1)), 5, 1).codes.size(0), 5);

  const InitialCodes means = KMeansCodes(Own(z), 20, 5, 150, Metric::kL2, 7);
  EXPECT_EQ(means.codes.sizes(), at::IntArrayRef({20, 4}));
  EXPECT_NEAR(means.counts.sum().item<float>(), 300, 1e-3);
}

TEST(CodebookTest, PendingStatisticsBelongToOneStep) {
  const CodeSums one{at::ones({2}, at::kLong), at::ones({2, 3})};
  PendingStatistics pending;
  EXPECT_FALSE(pending.Take().has_value());
  pending.Add(one, 4);
  pending.Add(one, 4);
  const auto taken = pending.Take();
  ASSERT_TRUE(taken.has_value());
  EXPECT_TRUE(at::equal(taken->counts, at::full({2}, 2, at::kLong)));
  EXPECT_TRUE(at::equal(taken->sums, at::full({2, 3}, 2.0)));
  EXPECT_FALSE(pending.Take().has_value());
  pending.Add(one, 5);
  pending.Add(one, 6);
  EXPECT_TRUE(at::equal(pending.Take()->counts, one.counts));
}

TEST(CodebookTest, HistoryLeavesRevivedCodesOut) {
  CodeHistory history(4, 10);
  const at::Tensor none = at::zeros({4}, at::kLong);
  const at::Tensor no = at::zeros({4}, at::kBool);
  EXPECT_EQ(history.Usage(none, 0).item<float>(), 0);
  EXPECT_EQ(history.DeadShare(none, 0).item<float>(), 1);
  EXPECT_EQ(history.Usage(at::tensor({3, 0, 0, 0}, at::kLong), 0).item<float>(),
            0.25);

  history.Update(at::tensor({1, 1, 1, 0}, at::kLong), no, 0);
  EXPECT_EQ(history.Usage(none, 1).item<float>(), 0.75);
  // Code 2 is revived and used: it does not count until a window has passed.
  at::Tensor third = no.clone();
  third[2] = true;
  history.Update(at::tensor({1, 0, 1, 0}, at::kLong), third, 3);
  EXPECT_EQ(history.Usage(none, 4).item<float>(), 0.5);
  EXPECT_EQ(history.DeadShare(none, 4).item<float>(), 0.25);
  EXPECT_EQ(history.Revivals().item<float>(), 1);
  history.Update(at::tensor({0, 0, 1, 0}, at::kLong), no, 13);
  EXPECT_EQ(history.Revivals().item<float>(), 0);
  EXPECT_EQ(history.Usage(none, 14).item<float>(), 0.25);  // Code 2 alone.
}

TEST(CodeHistoryTest, Ages) {
  CodeHistory history(4, 2);
  EXPECT_TRUE(history.CodeValues().empty());
  const at::Tensor no = at::zeros({4}, at::kBool);
  // Before any step: the batch's codes are new, the others as old as nothing.
  EXPECT_TRUE(at::equal(history.Ages(at::tensor({2, 0, 0, 0}, at::kLong), 0),
                        at::tensor({0., 1., 1., 1.}, at::kFloat)));
  history.Update(at::tensor({1, 1, 0, 0}, at::kLong), no, 1);
  history.Update(at::tensor({1, 0, 3, 0}, at::kLong), no, 2);
  history.Update(at::tensor({4, 0, 0, 0}, at::kLong), no, 3);
  const NamedTensors values = history.CodeValues();
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(values[0].first, "code_counts");
  EXPECT_TRUE(at::equal(values[0].second, at::tensor({4, 0, 0, 0}, at::kLong)));
  EXPECT_EQ(values[1].first, "code_age");
  EXPECT_TRUE(
      at::equal(values[1].second, at::tensor({0., 2., 1., 3.}, at::kFloat)));
  // In the batch after that; no code is older than the training.
  const at::Tensor batch = at::tensor({0, 0, 0, 1}, at::kLong);
  EXPECT_TRUE(at::equal(history.Ages(batch, 3),
                        at::tensor({1., 3., 2., 0.}, at::kFloat)));
  for (const auto& [name, value] : history.Metrics(batch, 3)) {
    if (name == "code_age_mean") {
      EXPECT_EQ(value.item<float>(), 1.5);
    }
    if (name == "code_age_max") {
      EXPECT_EQ(value.item<float>(), 3);
    }
  }
}

// A stage that starts from another one's state starts to count anew.
TEST(CodeHistoryTest, StepsOfAnotherTrainingDoNotCount) {
  CodeHistory history(2, 10);
  const at::Tensor no = at::zeros({2}, at::kBool);
  const at::Tensor none = at::zeros({2}, at::kLong);
  history.Update(at::tensor({1, 1}, at::kLong),
                 at::tensor({1, 0}, at::kLong).to(at::kBool), 500);
  EXPECT_EQ(history.Usage(none, 0).item<float>(), 0);
  EXPECT_EQ(history.DeadShare(none, 0).item<float>(), 1);
  EXPECT_EQ(history.Usage(at::tensor({1, 0}, at::kLong), 0).item<float>(), 0.5);
  EXPECT_EQ(history.Ages(none, 0).max().item<float>(), 1);
  history.Update(at::tensor({1, 0}, at::kLong), no, 1);
  EXPECT_EQ(history.Usage(none, 600).item<float>(), 0);
  EXPECT_EQ(history.Usage(none, 1).item<float>(), 0.5);
}

at::Tensor Metric(const NamedTensors& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics) {
    if (key == name) return value;
  }
  ADD_FAILURE() << "no metric " << name;
  return at::full({}, std::nan(""));
}

TEST(CodeCounterTest, EstimatesTheNumberOfVeryManyCodes) {
  constexpr int64_t kCodes = int64_t{1} << 30;
  FeatureRows rows;
  // In a row, spread, and both in many numbers; each code twice.
  for (const int64_t n : {1000, 100000, 3000000}) {
    for (const int64_t stride : {1, 64, 4096}) {
      if (n * stride > kCodes) continue;
      SCOPED_TRACE(testing::Message() << n << " codes, " << stride << " apart");
      torch::nn::Module owner;
      CodeCounter counter(&owner, kCodes, 3);
      const at::Tensor codes = at::arange(n, at::kLong).repeat({2}) * stride;
      rows.usable = at::ones({2 * n}, at::kBool);
      const NamedTensors metrics = counter.Count(codes, rows, 0);
      const double found =
          Metric(metrics, "codes_in_batch_estimate").item<double>();
      EXPECT_NEAR(found, static_cast<double>(n), 0.01 * static_cast<double>(n));
      EXPECT_EQ(Metric(metrics, "codes_in_window_estimate").item<double>(),
                found);
      EXPECT_NEAR(Metric(metrics, "usage_estimate").item<double>(),
                  found / static_cast<double>(kCodes), 1e-9);
      const double perplexity =
          Metric(metrics, "perplexity_at_least").item<double>();
      EXPECT_LE(perplexity, static_cast<double>(n) * (1 + 1e-5));
      if (n == 1000) {
        EXPECT_GE(perplexity, 990);
      }
      EXPECT_TRUE(counter.CodeValues().empty());
    }
  }
}

TEST(CodeCounterTest, TheWindowHoldsTheCodesOfSeveralSteps) {
  torch::nn::Module owner;
  CodeCounter counter(&owner, int64_t{1} << 30, 2);
  FeatureRows rows;
  rows.usable = at::ones({500}, at::kBool);
  const auto window = [&](int64_t step) {
    const NamedTensors metrics =
        counter.Count(at::arange(500, at::kLong) + 500 * step, rows, step);
    counter.AfterStep(step + 1);
    return Metric(metrics, "codes_in_window_estimate").item<double>();
  };
  EXPECT_NEAR(window(0), 500, 5);
  EXPECT_NEAR(window(1), 1000, 10);
  EXPECT_NEAR(window(2), 1500, 15);  // Two steps back, and this batch.
  EXPECT_NEAR(window(3), 1500, 15);
}

// Two ranks with unequal parts of a batch against one with all of it.
TEST(RanksTest, StatisticsAreThoseOfTheWholeBatch) {
  at::manual_seed(8);
  const at::Tensor all = at::randn({24, 3}, at::kDouble);
  const at::Tensor codes = at::randint(0, 5, {24}, at::kLong);
  const at::Tensor valid = at::rand({24}) > 0.4;
  const auto rows_of = [&](Communicator* group) {
    const int64_t n = group == nullptr ? 24 : 12;
    const int64_t first = group == nullptr ? 0 : 12 * group->rank();
    QuantizeContext context;
    context.mode = QuantizeMode::kTrain;
    context.group = group;
    context.valid = valid.narrow(0, first, n).view({1, n});
    return ToRows(all.narrow(0, first, n).unsqueeze(0), context, 3, at::kDouble,
                  "q");
  };
  const auto counted = [&](Communicator* group) {
    torch::nn::Module owner;
    CodeCounter counter(&owner, 5, 10);
    const FeatureRows rows = rows_of(group);
    const int64_t n = rows.z.size(0);
    NamedTensors metrics = counter.Count(
        codes.narrow(0, group == nullptr ? 0 : n * group->rank(), n), rows, 0);
    metrics.emplace_back("mean", MeanOverRows(rows.z.square().sum(1), rows));
    metrics.emplace_back("nonfinite", NonFiniteRows(rows));
    AverageOverRanks(group, &metrics);
    counter.AfterStep(1);
    for (const auto& value : counter.CodeValues()) metrics.push_back(value);
    return metrics;
  };
  const auto kmeans = [&](Communicator* group, int64_t samples) {
    const FeatureRows rows = rows_of(group);
    return KMeansCodes(ShardedRows::Counted(rows.z.index({rows.usable}), group),
                       4, 5, samples, Metric::kL2, 3)
        .codes;
  };
  const auto reservoir = [&](Communicator* group) {
    FeatureReservoir r(32, 3);
    r.to(at::kDouble);
    const FeatureRows rows = rows_of(group);
    r.Fill(ShardedRows::Counted(rows.z.index({rows.usable}), group), 1);
    for (int64_t step = 0; step < 3; ++step) {
      r.Offer(rows.z + static_cast<double>(step), rows.usable, step, 9, group);
      r.Offer(rows.z - static_cast<double>(step), rows.usable, step, 9, group);
      r.Commit(step);
    }
    return r.Draw(at::ones({32}, at::kBool), 5);
  };
  const auto entropies = [&](Communicator* group) {
    const FeatureRows rows = rows_of(group);
    at::Tensor logits = (rows.z * 2).detach().requires_grad_();
    const at::Tensor of_mean = SoftCodes(logits, rows).EntropyOfMean();
    of_mean.backward();
    return std::make_pair(of_mean.detach(), logits.grad());
  };

  const NamedTensors metrics = counted(nullptr);
  const auto [entropy, gradient] = entropies(nullptr);
  RunRanks(2, [&, entropy = entropy, gradient = gradient](Communicator& group) {
    const NamedTensors own = counted(&group);
    ASSERT_EQ(own.size(), metrics.size());
    for (size_t i = 0; i < own.size(); ++i) {
      EXPECT_EQ(own[i].first, metrics[i].first);
      EXPECT_TRUE(at::allclose(own[i].second, metrics[i].second, 1e-12))
          << own[i].first << ": " << own[i].second << ", expected "
          << metrics[i].second;
    }
    for (const int64_t samples : {0, 9}) {
      EXPECT_TRUE(at::equal(kmeans(&group, samples), kmeans(nullptr, samples)));
    }
    EXPECT_TRUE(at::equal(reservoir(&group), reservoir(nullptr)));
    const auto [value, part] = entropies(&group);
    EXPECT_TRUE(at::allclose(value, entropy, 1e-12));
    EXPECT_TRUE(
        at::allclose(part / 2, gradient.narrow(0, 12 * group.rank(), 12)));
  });
}

TEST(CodebookTest, ReservoirHoldsRecentUsableFeatures) {
  at::manual_seed(5);
  FeatureReservoir reservoir(16, 2);
  reservoir.Fill(Own(at::zeros({3, 2})), 1);
  const at::Tensor all = at::ones({16}, at::kBool);
  EXPECT_EQ(reservoir.Draw(all, 1).abs().max().item<float>(), 0);
  // A step brings two rows; only usable ones enter.
  reservoir.Offer(at::full({50, 2}, 9.0), at::zeros({50}, at::kBool), 0, 1);
  reservoir.Commit(0);
  EXPECT_EQ(reservoir.Draw(all, 1).abs().max().item<float>(), 0);
  for (int64_t step = 1; step < 8; ++step) {
    reservoir.Offer(at::full({50, 2}, static_cast<double>(step)),
                    at::ones({50}, at::kBool), step, 1);
    reservoir.Commit(step);
  }
  const at::Tensor sorted =
      std::get<0>(reservoir.Draw(all, 3).select(1, 0).sort());
  EXPECT_TRUE(at::equal(sorted, at::arange(0, 8.0).repeat_interleave(2)));
  // An offer of a step that was skipped is dropped.
  reservoir.Offer(at::full({50, 2}, 99.0), at::ones({50}, at::kBool), 8, 1);
  reservoir.Offer(at::full({50, 2}, 10.0), at::ones({50}, at::kBool), 9, 1);
  reservoir.Commit(9);
  EXPECT_EQ(reservoir.Draw(all, 1).max().item<float>(), 10);
  // Wanted codes get distinct rows.
  at::Tensor rows = at::randn({16, 2});
  reservoir.Fill(Own(rows), 2);
  at::Tensor wanted = at::zeros({40}, at::kBool);
  wanted.slice(0, 0, 40, 4) = true;
  const at::Tensor drawn = reservoir.Draw(wanted, 5).slice(0, 0, 40, 4);
  EXPECT_EQ(std::get<0>(at::_unique(drawn.select(1, 0))).size(0), 10);
}

}  // namespace
}  // namespace semvq
