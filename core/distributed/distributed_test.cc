#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "core/distributed/communicator.h"
#include "core/distributed/sharded_rows.h"
#include "core/distributed/testing.h"

namespace semvq {
namespace {

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

}  // namespace
}  // namespace semvq
