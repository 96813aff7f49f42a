#include "tasks/mim_accuracy/mim_accuracy.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/forward/testing_eval.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

// Codes of every patch, what is masked and what is predicted there.
struct Scene {
  at::Tensor codes;            // int64 [I, N, G]
  at::Tensor positions;        // int64 [I, M]
  at::Tensor valid;            // bool [I, M] or undefined
  at::Tensor predicted;        // int64 [I, M, G]
  std::vector<int64_t> sizes;  // [G]
};

Scene RandomScene(uint64_t seed, int64_t images, std::vector<int64_t> sizes) {
  torch::manual_seed(seed);
  const auto groups = static_cast<int64_t>(sizes.size());
  Scene scene;
  scene.sizes = std::move(sizes);
  scene.codes = at::empty({images, 9, groups}, at::kLong);
  scene.predicted = at::empty({images, 4, groups}, at::kLong);
  for (int64_t g = 0; g < groups; ++g) {
    // Squared, so that the codes' frequencies differ.
    const auto draw = [&](int64_t columns) {
      return at::rand({images, columns})
          .square()
          .mul(scene.sizes[g])
          .to(at::kLong);
    };
    scene.codes.select(2, g).copy_(draw(9));
    scene.predicted.select(2, g).copy_(draw(4));
  }
  scene.positions = std::get<1>(at::rand({images, 9}).sort(1)).narrow(1, 0, 4);
  scene.positions = std::get<0>(scene.positions.sort(1));
  return scene;
}

class Evaluation {
 public:
  Evaluation(const Scene& scene, const MimAccuracyConfig& config,
             int64_t batch_size = 3) {
    const int64_t images = scene.codes.size(0);
    for (int64_t first = 0; first < images; first += batch_size) {
      const int64_t n = std::min(batch_size, images - first);
      Batch batch;
      batch.images = at::arange(first, first + n).view({n, 1, 1, 1, 1});
      context.streams[""].push_back(batch);
    }
    const auto rows = [](Forward& f, const at::Tensor& all) {
      return all.index_select(0, f.batch().images.flatten());
    };
    quantizer = &context.Provide(
        "codebook", [=](const ViewKey&, Forward& f) -> std::any {
          QuantizedTokens tokens;
          tokens.quantized.codes = rows(f, scene.codes);
          return tokens;
        });
    mim = &context.Provide(
        "mim", [=](const ViewKey& key, Forward& f) -> std::any {
          if (key.view == kImageMask) {
            ImageMask mask;
            mask.positions = rows(f, scene.positions);
            if (scene.valid.defined()) mask.valid = rows(f, scene.valid);
            return mask;
          }
          std::vector<at::Tensor> logits;
          const at::Tensor predicted = rows(f, scene.predicted);
          for (size_t g = 0; g < scene.sizes.size(); ++g) {
            const at::Tensor code = predicted.select(2, g).unsqueeze(-1);
            logits.push_back(at::randn({code.size(0), 4, scene.sizes[g]})
                                 .clamp(-3, 3)
                                 .scatter_(2, code, 5.0));
          }
          return logits;
        });
    PluginContext plugin;
    plugin.instance = "heldout";
    absl::StatusOr<std::shared_ptr<Task>> task =
        MakeMimAccuracy(config, plugin);
    EXPECT_TRUE(task.ok()) << task.status();
    result = (*task)->Evaluate(context);
  }

  double Value(const std::string& name) const {
    return MetricOf(*result, name).value;
  }

  FakeEvalContext context;
  FakeProvider* quantizer;
  FakeProvider* mim;
  absl::StatusOr<TaskResult> result = absl::UnknownError("not run");
};

// The three numbers by plain loops; the random control by its expectation over
// all orders.
struct Expected {
  double top1 = 0, majority = 0, random = 0;
  int64_t patches = 0;
};

Expected ByHand(const Scene& scene) {
  Expected e;
  const auto groups = static_cast<int64_t>(scene.sizes.size());
  for (int64_t g = 0; g < groups; ++g) {
    std::map<int64_t, double> target, predicted;
    double hits = 0;
    e.patches = 0;
    for (int64_t i = 0; i < scene.codes.size(0); ++i) {
      for (int64_t m = 0; m < scene.positions.size(1); ++m) {
        if (scene.valid.defined() && !scene.valid[i][m].item<bool>()) continue;
        const int64_t p = scene.positions[i][m].item<int64_t>();
        const int64_t code = scene.codes[i][p][g].item<int64_t>();
        if (code < 0) continue;
        const int64_t guess = scene.predicted[i][m][g].item<int64_t>();
        hits += code == guess;
        ++target[code];
        ++predicted[guess];
        ++e.patches;
      }
    }
    const double n = static_cast<double>(e.patches);
    double most = 0, chance = 0;
    for (const auto& [code, count] : target) {
      most = std::max(most, count);
      chance += count / n * predicted[code] / n;
    }
    e.top1 += 100 * hits / n / groups;
    e.majority += 100 * most / n / groups;
    e.random += 100 * chance / groups;
  }
  return e;
}

void ExpectMatches(const Scene& scene) {
  MimAccuracyConfig config;
  config.set_permutations(400);
  Evaluation run(scene, config);
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  const Expected e = ByHand(scene);
  EXPECT_NEAR(run.Value("MIM top-1"), e.top1, 1e-9);
  EXPECT_NEAR(run.Value("control: most frequent code"), e.majority, 1e-9);
  EXPECT_NEAR(run.Value("control: random codes"), e.random, 0.6);
  EXPECT_EQ(MetricOf(*run.result, "MIM top-1").chance,
            run.Value("control: random codes"));
  EXPECT_EQ(run.result->note, std::to_string(e.patches) + " masked patches");
}

TEST(MimAccuracyTest, ScoresKnownPredictions) {
  ExpectMatches(RandomScene(1, 40, {6}));
}

TEST(MimAccuracyTest, AveragesGroups) {
  ExpectMatches(RandomScene(2, 40, {3, 11}));
}

TEST(MimAccuracyTest, LeavesOutFilledUpAndInvalidPositions) {
  Scene scene = RandomScene(3, 40, {4, 5});
  scene.valid = at::rand({40, 4}) > 0.3;
  scene.codes.select(0, 7).fill_(-1);
  scene.codes.select(0, 8).narrow(0, 0, 5).fill_(-1);
  ExpectMatches(scene);
}

TEST(MimAccuracyTest, APerfectHeadScoresAllAndTheControlsDoNot) {
  Scene scene = RandomScene(4, 50, {8});
  scene.predicted = at::gather(scene.codes, 1, scene.positions.unsqueeze(-1));
  Evaluation run(scene, MimAccuracyConfig());
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  EXPECT_EQ(run.Value("MIM top-1"), 100);
  EXPECT_LT(run.Value("control: random codes"), 40);
  EXPECT_LT(run.Value("control: most frequent code"), 60);
}

// A head that always says the most frequent code learned nothing: all three
// numbers are the same.
TEST(MimAccuracyTest, AConstantHeadIsAtItsControls) {
  Scene scene = RandomScene(5, 50, {8});
  scene.predicted.zero_();  // Squaring makes 0 the most frequent.
  Evaluation run(scene, MimAccuracyConfig());
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  EXPECT_NEAR(run.Value("MIM top-1"), run.Value("control: most frequent code"),
              1e-9);
  EXPECT_NEAR(run.Value("MIM top-1"), run.Value("control: random codes"), 1e-9);
}

TEST(MimAccuracyTest, TargetsAreCleanAndPredictionsMasked) {
  Evaluation run(RandomScene(6, 3, {4}), MimAccuracyConfig());
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  ASSERT_EQ(run.quantizer->asked.size(), 1u);
  EXPECT_EQ(ToString(run.quantizer->asked[0]), "codebook/quantized");
  ASSERT_EQ(run.mim->asked.size(), 2u);
  EXPECT_EQ(ToString(run.mim->asked[0]), "mim/image_mask");
  EXPECT_EQ(ToString(run.mim->asked[1]), "mim/mim_logits[image_mask=mim]");
}

TEST(MimAccuracyTest, TheSameSeedGivesTheSameControlForAnyBatchSize) {
  const Scene scene = RandomScene(7, 20, {6});
  Evaluation a(scene, MimAccuracyConfig(), 1), b(scene, MimAccuracyConfig(), 9);
  ASSERT_TRUE(a.result.ok() && b.result.ok());
  EXPECT_EQ(a.Value("control: random codes"), b.Value("control: random codes"));
}

TEST(MimAccuracyTest, NothingToScoreIsAnError) {
  Scene scene = RandomScene(8, 2, {4});
  scene.valid = at::zeros({2, 4}, at::kBool);
  Evaluation masked(scene, MimAccuracyConfig());
  EXPECT_EQ(masked.result.status().code(),
            absl::StatusCode::kFailedPrecondition);
  Evaluation empty(RandomScene(8, 0, {4}), MimAccuracyConfig());
  EXPECT_TRUE(
      absl::StrContains(empty.result.status().message(), "task heldout: "))
      << empty.result.status();
}

TEST(MimAccuracyTest, Validates) {
  MimAccuracyConfig config;
  EXPECT_TRUE(ValidateMimAccuracy(config).ok());
  config.set_permutations(0);
  config.set_mim("");
  config.set_quantizer("");
  const std::string message(ValidateMimAccuracy(config).message());
  for (const char* part : {"permutations: got 0", "mim: ", "quantizer: "}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
  const Contract contract = MimAccuracyContract("m", MimAccuracyConfig(), {});
  ASSERT_EQ(contract.needs.size(), 3u);
  EXPECT_TRUE(contract.needs[2].needs_codes);
}

}  // namespace
}  // namespace semvq
