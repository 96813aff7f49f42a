#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/distributed/agree.h"
#include "core/distributed/communicator.h"
#include "core/distributed/gather_rows.h"
#include "core/distributed/gradient_reducer.h"
#include "core/distributed/sharded_rows.h"
#include "core/distributed/testing.h"

namespace semvq {
namespace {

using ::testing::HasSubstr;

// What each rank's `run` gives, by rank.
std::vector<at::Tensor> OfRanks(
    int64_t size, const std::function<at::Tensor(Communicator&)>& run) {
  std::vector<at::Tensor> out(size);
  RunRanks(size, [&](Communicator& group) { out[group.rank()] = run(group); });
  return out;
}

TEST(CommunicatorTest, EveryRankKnowsItself) {
  const std::vector<at::Tensor> ranks = OfRanks(3, [](Communicator& group) {
    return at::tensor({group.rank(), group.size()}, at::kLong);
  });
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_EQ(ranks[r][0].item<int64_t>(), r);
    EXPECT_EQ(ranks[r][1].item<int64_t>(), 3);
  }
}

TEST(CommunicatorTest, SumsAndLeavesTheCallersTensorAlone) {
  for (const at::ScalarType type : {at::kLong, at::kFloat, at::kDouble}) {
    std::vector<at::Tensor> own(3);
    const std::vector<at::Tensor> sums = OfRanks(3, [&](Communicator& group) {
      own[group.rank()] = at::arange(6, type).view({2, 3}) * group.rank();
      // Transposed: not dense in memory order.
      return group.AllReduceSum(own[group.rank()].t());
    });
    for (int64_t r = 0; r < 3; ++r) {
      EXPECT_TRUE(at::equal(sums[r], at::arange(6, type).view({2, 3}).t() * 3));
      EXPECT_TRUE(at::equal(own[r], at::arange(6, type).view({2, 3}) * r));
    }
  }
}

TEST(CommunicatorTest, SumsTensorsOfSeveralTypesAtOnce) {
  RunRanks(2, [](Communicator& group) {
    const int64_t n = group.rank() + 1;
    const std::vector<at::Tensor> sums =
        group.AllReduceSum(std::vector<at::Tensor>{
            at::full({2, 2}, n, at::kLong), at::full({3}, 0.5 * n, at::kDouble),
            at::full({}, 10 * n, at::kLong), at::empty({0, 4}, at::kDouble)});
    ASSERT_EQ(sums.size(), 4u);
    EXPECT_TRUE(at::equal(sums[0], at::full({2, 2}, 3, at::kLong)));
    EXPECT_TRUE(at::equal(sums[1], at::full({3}, 1.5, at::kDouble)));
    EXPECT_TRUE(at::equal(sums[2], at::full({}, 30, at::kLong)));
    EXPECT_EQ(sums[3].sizes().vec(), (std::vector<int64_t>{0, 4}));
  });
}

TEST(CommunicatorTest, GathersEqualAndUnequalRows) {
  RunRanks(3, [](Communicator& group) {
    const at::Tensor all =
        group.AllGather(at::full({2}, group.rank(), at::kFloat));
    EXPECT_TRUE(
        at::equal(all, at::arange(3, at::kFloat).unsqueeze(1).expand({3, 2})));
    // 2, 1 and 0 rows.
    const int64_t n = 2 - group.rank();
    const at::Tensor rows = group.AllGatherRows(
        at::arange(n * 2, at::kDouble).view({n, 2}) + 10 * group.rank());
    EXPECT_TRUE(at::equal(
        rows, at::tensor({0., 1., 2., 3., 10., 11.}, at::kDouble).view({3, 2})))
        << rows;
  });
}

TEST(CommunicatorTest, BroadcastsTheRootsTensor) {
  RunRanks(3, [](Communicator& group) {
    const at::Tensor own = at::full({2, 2}, group.rank(), at::kFloat);
    EXPECT_TRUE(at::equal(group.Broadcast(own, 1), at::ones({2, 2})));
    EXPECT_TRUE(at::equal(own, at::full({2, 2}, group.rank(), at::kFloat)));
  });
}

TEST(CommunicatorTest, AFunctionOfTheMeanHasItsGradient) {
  // f(mean) = |mean|^2 over two ranks, against the same on one.
  const at::Tensor x = at::tensor({1., -2., 3., 5.}, at::kDouble).view({2, 2});
  at::Tensor whole = x.clone().requires_grad_();
  whole.mean(0).square().sum().backward();
  const std::vector<at::Tensor> gradients =
      OfRanks(2, [&](Communicator& group) {
        at::Tensor own = x[group.rank()].clone().requires_grad_();
        const at::Tensor loss = MeanOverRanks(own, &group).square().sum();
        EXPECT_DOUBLE_EQ(loss.item<double>(), 4 + 2.25);
        // Half: the gradients of the ranks are averaged.
        return torch::autograd::grad({loss}, {own})[0] / 2;
      });
  EXPECT_TRUE(at::equal(at::stack(gradients), whole.grad()));
  EXPECT_TRUE(MeanOverRanks(whole, nullptr).is_same(whole));
}

TEST(ShardedRowsTest, TakesFromAllRanks) {
  const at::Tensor all = at::arange(12, at::kFloat).view({6, 2});
  const std::vector<int64_t> indices = {5, 0, 3, 3, 2};
  const at::Tensor expected =
      all.index_select(0, at::tensor(indices, at::kLong));
  EXPECT_TRUE(
      at::equal(ShardedRows::Equal(all, nullptr).Take(indices), expected));
  RunRanks(3, [&](Communicator& group) {
    const ShardedRows rows =
        ShardedRows::Equal(all.narrow(0, 2 * group.rank(), 2), &group);
    EXPECT_EQ(rows.size(), 6);
    EXPECT_TRUE(at::equal(rows.Take(indices), expected));
    EXPECT_TRUE(at::equal(rows.All(), all));
  });
  // 1, 0 and 5 rows; of several dimensions, and of integers.
  RunRanks(3, [&](Communicator& group) {
    const int64_t begin = group.rank() == 0 ? 0 : 1;
    const int64_t n = group.rank() == 0 ? 1 : group.rank() == 1 ? 0 : 5;
    const ShardedRows rows = ShardedRows::Counted(
        all.to(at::kLong).view({6, 1, 2}).narrow(0, begin, n), &group);
    EXPECT_EQ(rows.size(), 6);
    EXPECT_TRUE(
        at::equal(rows.Take(indices), expected.to(at::kLong).view({5, 1, 2})));
  });
}

TEST(CommunicatorTest, BroadcastsManyTensorsInPlace) {
  RunRanks(3, [](Communicator& group) {
    const double r = static_cast<double>(group.rank());
    at::Tensor a = at::full({2, 3}, r, at::kFloat).requires_grad_();
    const at::Tensor b = at::full({}, group.rank(), at::kLong);
    const at::Tensor c = at::full({4, 2}, r, at::kDouble).t();
    const at::Tensor d = at::full({2}, group.rank() == 2, at::kBool);
    const at::Tensor e = at::empty({0}, at::kFloat);
    group.BroadcastInto({a, b, c, d, e}, 2);
    EXPECT_TRUE(at::equal(a, at::full({2, 3}, 2, at::kFloat)));
    EXPECT_TRUE(a.requires_grad());
    EXPECT_EQ(b.item<int64_t>(), 2);
    EXPECT_TRUE(at::equal(c, at::full({2, 4}, 2, at::kDouble)));
    EXPECT_TRUE(d.all().item<bool>());
  });
}

TEST(CommunicatorTest, SendsRowsToEachRank) {
  for (const at::ScalarType type :
       {at::kDouble, at::kLong, at::kBool, at::kBFloat16}) {
    RunRanks(3, [type](Communicator& group) {
      // Rank s sends r rows of the number s to rank r.
      std::vector<at::Tensor> to;
      for (int64_t r = 0; r < 3; ++r)
        to.push_back(at::full({r, 2}, group.rank(), at::kLong).to(type));
      const std::vector<int64_t> counts(3, group.rank());
      const at::Tensor got = group.AllToAll(to, counts);
      const at::Tensor expected =
          at::arange(3, at::kLong).repeat_interleave(group.rank());
      EXPECT_TRUE(
          at::equal(got, expected.unsqueeze(1).expand({-1, 2}).to(type)))
          << got;
    });
  }
}

TEST(CommunicatorTest, ExchangesTexts) {
  RunRanks(3, [](Communicator& group) {
    const std::vector<std::string> texts = {"", std::string("a\0b", 3), "c"};
    EXPECT_EQ(group.AllGatherText(texts[group.rank()]), texts);
    EXPECT_EQ(group.BroadcastText(group.rank() == 0 ? texts[1] : "other"),
              texts[1]);
    EXPECT_EQ(group.BroadcastText(group.rank() == 0 ? "" : "other"), "");
    group.Barrier();
  });
}

TEST(AgreeTest, TheFirstRanksErrorIsEverybodys) {
  const absl::Status lost = absl::DataLossError("two words");
  EXPECT_EQ(AgreeOnStatus(lost, nullptr), lost);
  RunRanks(3, [&](Communicator& group) {
    EXPECT_TRUE(AgreeOnStatus(absl::OkStatus(), &group).ok());
    EXPECT_EQ(AgreeOnStatus(group.rank() == 0   ? absl::OkStatus()
                            : group.rank() == 1 ? lost
                                                : absl::UnknownError("b"),
                            &group),
              absl::DataLossError("rank 1: two words"));
  });
}

// Rows of three ranks: 1, 3 and 2.
at::Tensor RowsOf(int64_t rank, const at::Tensor& all) {
  const int64_t first[] = {0, 1, 4, 6};
  return all.narrow(0, first[rank], first[rank + 1] - first[rank]);
}

// A loss of rows whose gradient differs by place and rank.
at::Tensor LossOf(int64_t rank, const at::Tensor& rows) {
  return (rows.square() * at::arange(rows.numel(), at::kDouble).view_as(rows) *
          static_cast<double>(rank + 1))
      .sum();
}

TEST(GatherRowsTest, ValuesAndGradientsAreThoseOfOneRank) {
  const at::Tensor all = at::arange(12, at::kDouble).view({6, 2}) + 1;
  at::Tensor whole = all.clone().requires_grad_();
  (LossOf(0, whole) + LossOf(1, whole) + LossOf(2, whole)).backward();
  RunRanks(3, [&](Communicator& group) {
    at::Tensor own = RowsOf(group.rank(), all).clone().requires_grad_();
    const at::Tensor rows = GatherRows(own, &group);
    EXPECT_TRUE(at::equal(rows, all));
    LossOf(group.rank(), rows).backward();
    EXPECT_TRUE(at::equal(own.grad(), RowsOf(group.rank(), whole.grad())));
    const at::Tensor ids = at::arange(6, at::kLong);
    EXPECT_TRUE(at::equal(GatherRows(RowsOf(group.rank(), ids), &group), ids));
  });
  EXPECT_TRUE(GatherRows(whole, nullptr).is_same(whole));
}

TEST(GatherRowsTest, FetchesTheRowsAskedFor) {
  const at::Tensor all = at::arange(12, at::kDouble).view({6, 2}) + 1;
  const std::vector<at::Tensor> asked = {
      at::tensor({5, 0, 2, 2}, at::kLong), at::empty({0}, at::kLong),
      at::tensor({1, 2, 5, 3, 4}, at::kLong)};
  at::Tensor whole = all.clone().requires_grad_();
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (int64_t r = 0; r < 3; ++r)
    loss = loss + LossOf(r, FetchRows(whole, asked[r], nullptr));
  loss.backward();
  RunRanks(3, [&](Communicator& group) {
    const int64_t rank = group.rank();
    at::Tensor own = RowsOf(rank, all).clone().requires_grad_();
    const at::Tensor rows = FetchRows(own, asked[rank], &group);
    EXPECT_TRUE(at::equal(rows, all.index_select(0, asked[rank])));
    LossOf(rank, rows).backward();
    EXPECT_TRUE(at::equal(own.grad(), RowsOf(rank, whole.grad())));
    const at::Tensor mask = at::arange(6, at::kLong).remainder(2).eq(0);
    EXPECT_TRUE(at::equal(FetchRows(RowsOf(rank, mask), asked[rank], &group),
                          mask.index_select(0, asked[rank])));
  });
  EXPECT_THROW(RunRanks(2,
                        [&](Communicator& group) {
                          FetchRows(all, at::tensor({12}, at::kLong), &group);
                        }),
               c10::Error);
}

// Three parameters, the last of which gets a gradient always, never, or in
// every other step.
enum class Last { kAlways, kNever, kSometimes };

struct Toy {
  explicit Toy(Last last) : last(last) {
    for (int64_t n : {3, 400000, 2}) {
      parameters.emplace_back(
          std::to_string(n),
          at::linspace(0.1, 1, n, at::kDouble).requires_grad_());
    }
  }
  at::Tensor Loss(int64_t step, int64_t sample) const {
    const double x = 0.3 + 0.1 * static_cast<double>(7 * step + sample);
    at::Tensor loss =
        (parameters[1].second * x).sin().mean() * parameters[0].second.sum();
    if (last == Last::kAlways || (last == Last::kSometimes && step % 2 == 1))
      loss = loss + parameters[2].second.sum() * x;
    return loss;
  }
  void Clear() {
    for (auto& [name, p] : parameters) p.mutable_grad() = at::Tensor();
  }
  std::vector<at::Tensor> tensors() const {
    std::vector<at::Tensor> list;
    for (const auto& [name, p] : parameters) list.push_back(p);
    return list;
  }
  Last last;
  std::vector<std::pair<std::string, at::Tensor>> parameters;
};

// What of parameter i is in this rank's slices, as ones and zeros.
at::Tensor OwnSlice(const GradientBuckets& buckets, size_t i,
                    const at::Tensor& parameter, const Communicator& group) {
  const auto [bucket, offset] = buckets.places[i];
  const int64_t slice =
      GradientBuckets::SliceSize(buckets.sizes[bucket], group.size());
  const at::Tensor at = at::arange(parameter.numel()) + offset;
  return at.floor_divide(slice).eq(group.rank()).to(at::kDouble);
}

// Gradients of the mean over 2 ranks x 2 micro-steps.
void CompareGradients(const GradientReducerOptions& options, Last last,
                      double tolerance) {
  RunRanks(2, [&](Communicator& group) {
    Toy whole(last), toy(last);
    const GradientBuckets buckets(toy.tensors());
    GradientReducer reducer(toy.parameters, &group, options);
    for (int64_t step = 0; step < 5; ++step) {
      whole.Clear();
      for (int64_t sample = 0; sample < 4; ++sample)
        (whole.Loss(step, sample) / 4).backward();
      toy.Clear();
      (toy.Loss(step, 2 * group.rank()) / 2).backward();
      reducer.Backward(toy.Loss(step, 2 * group.rank() + 1) / 2);
      EXPECT_EQ(reducer.searches(),
                options.varying_graph || last == Last::kNever);
      for (size_t i = 0; i < toy.parameters.size(); ++i) {
        const at::Tensor& gradient = toy.parameters[i].second.grad();
        at::Tensor expected = whole.parameters[i].second.grad();
        ASSERT_EQ(gradient.defined(), expected.defined()) << step << " " << i;
        if (!expected.defined()) continue;
        const double scale = expected.abs().max().item<double>();
        if (options.scatter)
          expected = expected * OwnSlice(buckets, i, gradient, group);
        EXPECT_LE((gradient - expected).abs().max().item<double>(),
                  tolerance * scale)
            << step << " " << i;
        if (options.scatter) continue;
        EXPECT_TRUE(at::equal(group.Broadcast(gradient, 0), gradient));
      }
    }
  });
}

TEST(GradientReducerTest, AveragesWhatIsAccumulated) {
  for (const Last last : {Last::kAlways, Last::kNever, Last::kSometimes})
    CompareGradients({}, last, 1e-12);
}

TEST(GradientReducerTest, SearchesNoGraphThatDoesNotVary) {
  GradientReducerOptions options;
  options.varying_graph = false;
  CompareGradients(options, Last::kAlways, 1e-12);
  CompareGradients(options, Last::kNever, 1e-12);
}

TEST(GradientReducerTest, SaysWhatVariesAgainstItsWord) {
  GradientReducerOptions options;
  options.varying_graph = false;
  RunRanks(2, [&](Communicator& group) {
    Toy toy(Last::kSometimes);
    GradientReducer reducer(toy.parameters, &group, options);
    reducer.Backward(toy.Loss(1, 0));
    toy.Clear();
    try {
      reducer.Backward(toy.Loss(2, 0));
      ADD_FAILURE() << "no error";
    } catch (const c10::Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("parameter 2 has no gradient"));
    }
  });
}

TEST(GradientReducerTest, RoundsToBfloat16OnTheWay) {
  GradientReducerOptions options;
  options.bf16 = true;
  for (const Last last : {Last::kAlways, Last::kNever, Last::kSometimes})
    CompareGradients(options, last, 1.0 / 32);
}

TEST(GradientReducerTest, ScattersToEachRankItsSlices) {
  GradientReducerOptions options;
  options.scatter = true;
  for (const bool varying : {false, true}) {
    options.varying_graph = varying;
    CompareGradients(options, varying ? Last::kSometimes : Last::kAlways,
                     1e-12);
  }
  options.bf16 = true;
  CompareGradients(options, Last::kSometimes, 1.0 / 32);
}

}  // namespace
}  // namespace semvq
