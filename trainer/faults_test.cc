// Spikes of the loss, and what counts as running out of memory. Values that are
// not finite need a whole model: tests/e2e.
#include <c10/util/Exception.h>
#include <torch/types.h>

#include <cmath>
#include <new>
#include <string>

#include "gtest/gtest.h"
#include "trainer/loss_watch.h"
#include "trainer/out_of_memory.h"
#include "trainer/spike_detector.h"

namespace semvq {
namespace {

LossSpikes Config(double threshold = 8, int window = 16, int steps = 3) {
  LossSpikes config;
  config.set_threshold(threshold);
  config.set_window(window);
  config.set_steps(steps);
  return config;
}

// A falling loss with noise, as losses are.
double Ordinary(int64_t step) {
  return 2 + 3 * std::exp(-0.01 * static_cast<double>(step)) +
         0.2 * std::sin(12.9898 * static_cast<double>(step));
}

TEST(SpikeDetectorTest, FindsAJumpAndNamesItsFirstStep) {
  SpikeDetector detector(Config());
  int64_t step = 0;
  while (step < 100) {
    ++step;
    ASSERT_FALSE(detector.Add(step, Ordinary(step)).has_value()) << step;
  }
  EXPECT_FALSE(detector.Add(101, 9).has_value());
  EXPECT_FALSE(detector.Add(102, 10).has_value());
  const auto spike = detector.Add(103, 11);
  ASSERT_TRUE(spike.has_value());
  EXPECT_EQ(spike->first_step, 101);
  EXPECT_EQ(spike->loss, 11);
  EXPECT_NEAR(spike->median, Ordinary(95), 0.5);
  // The median of Ordinary's last 16 is known to a tenth, its spread is under
  // 0.3.
  EXPECT_GT(spike->deviations, (11 - spike->median) / 0.3);

  // The new level is no spike again; a jump from there is.
  for (step = 104; step < 130; ++step) {
    ASSERT_FALSE(detector.Add(step, 9 + Ordinary(step)).has_value()) << step;
  }
  int64_t found = 0;
  for (; step < 134 && found == 0; ++step) {
    if (detector.Add(step, 40).has_value()) found = step;
  }
  EXPECT_EQ(found, 132);
}

TEST(SpikeDetectorTest, SingleBadBatchesFallsAndFlatLossesAreNone) {
  SpikeDetector detector(Config());
  for (int64_t step = 1; step < 400; ++step) {
    const double loss = step % 10 == 0 ? 50 : Ordinary(step);
    ASSERT_FALSE(detector.Add(step, loss).has_value()) << step;
  }
  for (int64_t step = 400; step < 500; ++step) {
    ASSERT_FALSE(detector.Add(step, 0.5).has_value());
  }
  for (int64_t step = 500; step < 600; ++step) {
    // A spread of 0 does not make a spike of nothing.
    const double loss = step % 2 == 0 ? 0.5 : 0.5001;
    ASSERT_FALSE(detector.Add(step, loss).has_value());
  }
  SpikeDetector off(Config(0));
  for (int64_t step = 1; step < 50; ++step) {
    ASSERT_FALSE(off.Add(step, step < 40 ? 1 : 1e6).has_value());
  }
}

TEST(SpikeDetectorTest, WaitsForHalfAWindow) {
  SpikeDetector detector(Config(8, 16, 1));
  for (int64_t step = 1; step <= 7; ++step) {
    ASSERT_FALSE(detector.Add(step, 1 + 0.1 * (step % 2)).has_value());
  }
  EXPECT_FALSE(detector.Add(8, 100).has_value()) << "with 7 of 16";
  EXPECT_TRUE(detector.Add(9, 100).has_value());
}

TEST(SpikeDetectorTest, StateGoesOnWhereverItIsTaken) {
  for (int64_t cut = 0; cut < 45; ++cut) {
    SpikeDetector whole(Config()), first(Config());
    for (int64_t step = 1; step <= 50; ++step) {
      const double loss = step > 40 ? 9 : Ordinary(step);
      const auto expected = whole.Add(step, loss);
      if (step == cut) {
        SpikeDetector resumed(Config());
        ASSERT_TRUE(resumed.LoadState(first.State())) << first.State();
        EXPECT_EQ(resumed.State(), first.State());
        first = resumed;
      }
      const auto got = first.Add(step, loss);
      ASSERT_EQ(got.has_value(), expected.has_value()) << cut << " " << step;
      if (!got.has_value()) continue;
      EXPECT_EQ(got->first_step, expected->first_step);
      EXPECT_EQ(got->deviations, expected->deviations);
    }
  }
  SpikeDetector detector(Config());
  for (const char* bad :
       {"", "1", "x 0", "1 0 nonsense", "1 0 nan", "1 0 1p"}) {
    EXPECT_FALSE(detector.LoadState(bad)) << bad;
  }
}

TEST(LossWatchTest, LooksAtTheMeansOfMicroBatches) {
  LossWatch watch(Config(8, 16, 1));
  const auto report = [](double a, double b) {
    return NamedTensors{{"loss", torch::tensor(a)},
                        {"mlm/mask", torch::tensor(1e9)},
                        {"loss", torch::tensor(b)}};
  };
  for (int64_t step = 1; step <= 20; ++step) {
    watch.Add(step, report(1, Ordinary(step)));
  }
  EXPECT_FALSE(watch.Look().has_value());
  watch.Add(21, report(0, 20));
  watch.Add(22, report(1, 3));
  // What has not been looked at is part of the state.
  LossWatch resumed(Config(8, 16, 1));
  ASSERT_TRUE(resumed.LoadState(watch.State()));
  EXPECT_EQ(resumed.State(), watch.State());
  for (LossWatch* one : {&watch, &resumed}) {
    const auto spike = one->Look();
    ASSERT_TRUE(spike.has_value());
    EXPECT_EQ(spike->first_step, 21);
    EXPECT_EQ(spike->loss, 10);
    EXPECT_FALSE(one->Look().has_value());
  }
  EXPECT_FALSE(watch.LoadState("0 0;7"));
  EXPECT_FALSE(watch.LoadState("0 0;7 x"));
}

TEST(OutOfMemoryTest, IsToldFromOtherErrors) {
  const auto is = [](auto throwing) {
    try {
      throwing();
    } catch (const std::exception& error) {
      return IsOutOfMemory(error);
    }
    ADD_FAILURE() << "nothing was thrown";
    return false;
  };
  // More than any machine has.
  EXPECT_TRUE(is([] { at::empty({int64_t{1} << 50}, at::kByte); }));
  EXPECT_TRUE(is([] { throw std::bad_alloc(); }));
  EXPECT_TRUE(is([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA"); }));
  EXPECT_FALSE(is([] { at::ones({2}).view({3}); }));
  EXPECT_FALSE(is([] { throw std::runtime_error("other"); }));
}

}  // namespace
}  // namespace semvq
