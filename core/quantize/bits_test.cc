#include "core/quantize/bits.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/distributed/testing.h"
#include "core/nn/testing.h"

namespace semvq {
namespace {

FeatureRows Rows(const at::Tensor& z, const at::Tensor& valid = {}) {
  FeatureRows rows;
  rows.z = z;
  rows.valid = valid;
  return rows;
}

// The distribution over all codes of each row, [M, 2^L], written out.
at::Tensor Distribution(const at::Tensor& logits) {
  const int64_t length = logits.size(1), codes = int64_t{1} << length;
  at::Tensor p = at::empty({logits.size(0), codes}, logits.options());
  for (int64_t m = 0; m < logits.size(0); ++m) {
    for (int64_t c = 0; c < codes; ++c) {
      double product = 1;
      for (int64_t d = 0; d < length; ++d) {
        const double one = 1 / (1 + std::exp(-logits[m][d].item<double>()));
        product *= (c >> (length - 1 - d)) & 1 ? one : 1 - one;
      }
      p[m][c] = product;
    }
  }
  return p;
}

double Entropy(const at::Tensor& p) {
  return -at::xlogy(p, p).sum().item<double>();
}

TEST(BitsTest, CodesAreNumbersInBaseTwo) {
  const at::Tensor bits =
      at::tensor({0, 0, 0, 1, 0, 1, 1, 1, 1}, at::kLong).view({3, 3}).ne(0);
  const at::Tensor codes = CodesOfBits(bits);
  EXPECT_TRUE(at::equal(codes, at::tensor({0, 5, 7}, at::kLong)));
  EXPECT_TRUE(at::equal(BitsOfCodes(codes, 3), bits));
  EXPECT_EQ(CodesOfBits(at::ones({1, 40}, at::kBool))[0].item<int64_t>(),
            (int64_t{1} << 40) - 1);
}

TEST(BitsTest, EntropiesAreThoseOfTheDistributionWrittenOut) {
  at::manual_seed(1);
  for (const int64_t length : {1, 2, 5}) {
    const at::Tensor logits = 2 * at::randn({6, length}, at::kDouble);
    const at::Tensor p = Distribution(logits);
    EXPECT_NEAR(MeanBitEntropy(logits, Rows(logits)).item<double>(),
                Entropy(p) / 6, 1e-12);
    for (const int64_t together : {length, length + 3}) {
      EXPECT_NEAR(
          EntropyOfMeanBits(logits, Rows(logits), together).item<double>(),
          Entropy(p.mean(0)), 1e-12);
    }
    // Bit by bit: the entropies of the marginals, a bound from above.
    const at::Tensor one = at::sigmoid(logits).mean(0);
    const double split =
        EntropyOfMeanBits(logits, Rows(logits), 1).item<double>();
    EXPECT_NEAR(split, Entropy(one) + Entropy(1 - one), 1e-12);
    EXPECT_GE(split, Entropy(p.mean(0)) - 1e-12);
  }
}

TEST(BitsTest, RowsThatAreNotValidDoNotCount) {
  at::manual_seed(2);
  const at::Tensor logits = at::randn({5, 4}, at::kDouble);
  at::Tensor valid = at::ones({5}, at::kBool);
  valid[1] = false;
  valid[4] = false;
  const at::Tensor kept = logits.index({valid});
  const FeatureRows some = Rows(logits, valid), all = Rows(kept);
  EXPECT_NEAR(MeanBitEntropy(logits, some).item<double>(),
              MeanBitEntropy(kept, all).item<double>(), 1e-12);
  EXPECT_NEAR(EntropyOfMeanBits(logits, some, 3).item<double>(),
              EntropyOfMeanBits(kept, all, 3).item<double>(), 1e-12);
  const FeatureRows none = Rows(logits, at::zeros({5}, at::kBool));
  EXPECT_EQ(MeanBitEntropy(logits, none).item<double>(), 0);
  EXPECT_EQ(EntropyOfMeanBits(logits, none, 3).item<double>(), 0);
}

TEST(BitsTest, EntropiesHaveTheirNumericGradient) {
  at::manual_seed(3);
  at::Tensor valid = at::ones({6}, at::kBool);
  valid[2] = false;
  const at::Tensor logits = at::randn({6, 5}, at::kDouble).requires_grad_();
  const absl::Status status = NumericGradientCheck(
      [&valid](const std::vector<at::Tensor>& x) {
        const FeatureRows rows = Rows(x[0], valid);
        return at::stack({MeanBitEntropy(x[0], rows),
                          EntropyOfMeanBits(x[0], rows, 5),
                          EntropyOfMeanBits(x[0], rows, 2)});
      },
      {logits});
  EXPECT_TRUE(status.ok()) << status;
}

TEST(BitsTest, TheBatchIsThatOfAllRanks) {
  at::manual_seed(4);
  const at::Tensor all = at::randn({8, 5}, at::kDouble);
  at::Tensor whole = all.clone().requires_grad_();
  const at::Tensor expected = EntropyOfMeanBits(whole, Rows(whole), 3);
  expected.backward();
  RunRanks(2, [&](Communicator& group) {
    at::Tensor own =
        all.narrow(0, 4 * group.rank(), 4).clone().requires_grad_();
    FeatureRows rows = Rows(own);
    rows.group = &group;
    const at::Tensor entropy = EntropyOfMeanBits(own, rows, 3);
    EXPECT_NEAR(entropy.item<double>(), expected.item<double>(), 1e-12);
    entropy.backward();
    EXPECT_TRUE(at::allclose(own.grad() / 2,
                             whole.grad().narrow(0, 4 * group.rank(), 4)));
  });
}

TEST(BitsTest, CertainBitsHaveNoEntropyAndAFiniteGradient) {
  for (const double size : {50.0, 1e4, 1e30}) {
    const at::Tensor sure = at::full({4, 6}, size);
    at::Tensor logits = at::cat({sure, -sure}).requires_grad_();
    const at::Tensor token = MeanBitEntropy(logits, Rows(logits));
    const at::Tensor batch = EntropyOfMeanBits(logits, Rows(logits), 6);
    EXPECT_NEAR(token.item<double>(), 0, 1e-6);
    EXPECT_NEAR(batch.item<double>(), std::log(2.0), 1e-6);
    (token + batch).backward();
    EXPECT_TRUE(logits.grad().isfinite().all().item<bool>()) << size;
  }
}

}  // namespace
}  // namespace semvq
