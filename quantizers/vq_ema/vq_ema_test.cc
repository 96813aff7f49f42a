#include "quantizers/vq_ema/vq_ema.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/forward/views.h"
#include "core/nn/testing.h"
#include "core/plugin/quantizer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

VqEmaConfig Config(int64_t num_codes) {
  VqEmaConfig config;
  config.set_num_codes(num_codes);
  config.set_decay_warmup(false);
  config.mutable_codebook()->set_reservoir(64);
  return config;
}

VqEmaConfig Plain(int64_t num_codes) {
  VqEmaConfig config = Config(num_codes);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.mutable_codebook()->set_revive_after(0);
  return config;
}

std::shared_ptr<Quantizer> Make(const VqEmaConfig& config, int64_t dim) {
  Contract host;
  host.provides = {{kQuantized, dim}};
  ContractBook book;
  book.Add("codebook", host);
  PluginContext context;
  context.instance = "codebook";
  context.seed = 5;
  context.book = &book;
  auto made = MakeVqEma(config, context);
  EXPECT_TRUE(made.ok()) << made.status();
  return *made;
}

QuantizeContext Train(int64_t step) {
  QuantizeContext context;
  context.mode = QuantizeMode::kTrain;
  context.step = step;
  return context;
}

at::Tensor Buffer(Quantizer& quantizer, const std::string& name) {
  return quantizer.named_buffers()[name];
}

double Named(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors) {
    if (key == name) return value.item<double>();
  }
  ADD_FAILURE() << "nothing is named " << name;
  return NAN;
}

std::vector<at::Tensor> State(Quantizer& quantizer) {
  std::vector<at::Tensor> state;
  for (const at::Tensor& buffer : quantizer.buffers())
    state.push_back(buffer.clone());
  return state;
}

bool SameBits(const std::vector<at::Tensor>& a,
              const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return true;
}

// The formulas of METHOD, code by code, over the micro-steps of each step.
TEST(VqEmaTest, FollowsTheFormulas) {
  at::manual_seed(1);
  const int64_t k = 7, d = 3;
  VqEmaConfig config = Plain(k);
  config.set_decay(0.8);
  config.set_epsilon(1e-3);
  auto q = Make(config, d);
  q->to(at::kDouble);
  at::Tensor e = Buffer(*q, "codebook").clone();
  std::vector<double> n(k, 1.0);
  std::vector<at::Tensor> m;
  for (int64_t j = 0; j < k; ++j) m.push_back(e[j].clone());

  for (int64_t step = 0; step < 20; ++step) {
    std::vector<double> counts(k, 0.0);
    std::vector<at::Tensor> sums(k, at::zeros({d}, at::kDouble));
    for (int micro = 0; micro < 2; ++micro) {
      const at::Tensor z = at::randn({2, 5, d}, at::kDouble) + 0.1 * step;
      const Quantized out = q->Quantize(z, Train(step));
      double squared = 0;
      for (int64_t i = 0; i < 10; ++i) {
        const at::Tensor row = z.view({10, d})[i];
        const at::Tensor distance = (e - row).square().sum(1);
        const int64_t j = distance.argmin().item<int64_t>();
        // The look-up comes before the update.
        ASSERT_EQ(out.codes.view({10})[i].item<int64_t>(), j);
        ASSERT_TRUE(
            at::allclose(out.vectors.view({10, d})[i], e[j], 1e-10, 1e-12));
        counts[j] += 1;
        sums[j] = sums[j] + row;
        squared += distance[j].item<double>();
      }
      EXPECT_NEAR(Named(out.losses, "commitment"), squared / (10 * d), 1e-12);
      EXPECT_NEAR(Named(out.metrics, "quantization_error"), squared / 10,
                  1e-12);
    }
    ASSERT_TRUE(q->AfterStep(Train(step)).ok());
    double total = 0;
    for (int64_t j = 0; j < k; ++j) {
      n[j] = 0.8 * n[j] + (1 - 0.8) * counts[j];
      m[j] = 0.8 * m[j] + (1 - 0.8) * sums[j];
      total += n[j];
    }
    for (int64_t j = 0; j < k; ++j)
      e[j] = m[j] / ((n[j] + 1e-3) / (total + k * 1e-3) * total);
    ASSERT_TRUE(at::allclose(Buffer(*q, "codebook"), e, 1e-10, 1e-12));
  }
}

TEST(VqEmaTest, VectorsAreTheLookup) {
  at::manual_seed(2);
  for (auto estimator :
       {CodebookOptions::STRAIGHT_THROUGH, CodebookOptions::ROTATION}) {
    for (auto metric : {CodebookOptions::L2, CodebookOptions::COSINE}) {
      VqEmaConfig config = Config(20);
      config.mutable_codebook()->set_estimator(estimator);
      config.mutable_codebook()->set_metric(metric);
      auto q = Make(config, 6);
      for (int64_t step = 0; step < 3; ++step) {
        at::Tensor z = (at::randn({3, 8, 6}) * 3).requires_grad_();
        const Quantized out = q->Quantize(z, Train(step));
        EXPECT_EQ(out.vectors.sizes(), at::IntArrayRef({3, 8, 6}));
        EXPECT_EQ(out.codes.sizes(), at::IntArrayRef({3, 8, 1}));
        EXPECT_TRUE(at::equal(out.vectors, q->Lookup(out.codes)));
        out.vectors.square().sum().backward();
        EXPECT_GT(z.grad().abs().sum().item<float>(), 0);
        // A code's own vector is nearest to itself.
        QuantizeContext assign;
        EXPECT_TRUE(at::equal(q->Quantize(out.vectors.detach(), assign).vectors,
                              out.vectors));
        ASSERT_TRUE(q->AfterStep(Train(step)).ok());
        if (metric == CodebookOptions::COSINE) {
          EXPECT_TRUE(at::allclose(Buffer(*q, "codebook").norm(2, 1),
                                   at::ones({20}), 1e-5));
        }
      }
    }
  }
  auto q = Make(Plain(9), 4);
  at::Tensor z = at::randn({2, 3, 4}).requires_grad_();
  const at::Tensor up = at::randn({2, 3, 4});
  (q->Quantize(z, QuantizeContext()).vectors * up).sum().backward();
  EXPECT_TRUE(at::equal(z.grad(), up));
}

TEST(VqEmaTest, CommitmentHasTheRightGradient) {
  at::manual_seed(3);
  for (auto metric : {CodebookOptions::L2, CodebookOptions::COSINE}) {
    VqEmaConfig config = Plain(6);
    config.mutable_codebook()->set_metric(metric);
    auto q = Make(config, 4);
    q->to(at::kDouble);
    at::Tensor valid = at::ones({2, 5}, at::kBool);
    valid[1][2] = false;
    const absl::Status checked = NumericGradientCheck(
        [&](const std::vector<at::Tensor>& in) {
          QuantizeContext context = Train(0);
          context.valid = valid;
          return q->Quantize(in[0], context).losses[0].second;
        },
        {at::randn({2, 5, 4}, at::kDouble).requires_grad_()});
    EXPECT_TRUE(checked.ok()) << checked;
  }
}

TEST(VqEmaTest, InvalidPositionsCountNowhere) {
  at::manual_seed(4);
  const at::Tensor features = at::randn({2, 6, 3});
  at::Tensor valid = at::ones({2, 6}, at::kBool);
  valid.slice(1, 4) = false;
  auto padded = Make(Config(5), 3), cut = Make(Config(5), 3);
  for (int64_t step = 0; step < 4; ++step) {
    at::Tensor z = features.clone();
    z.slice(1, 4) = std::numeric_limits<float>::quiet_NaN();
    z.requires_grad_();
    QuantizeContext context = Train(step);
    context.valid = valid;
    const Quantized out = padded->Quantize(z, context);
    const Quantized expected =
        cut->Quantize(features.slice(1, 0, 4), Train(step));
    EXPECT_TRUE(at::equal(out.codes.slice(1, 0, 4), expected.codes));
    EXPECT_TRUE(at::equal(out.vectors.slice(1, 0, 4), expected.vectors));
    EXPECT_EQ(out.codes.slice(1, 4).max().item<int64_t>(), -1);
    EXPECT_EQ(out.vectors.slice(1, 4).abs().max().item<float>(), 0);
    EXPECT_FLOAT_EQ(Named(out.losses, "commitment"),
                    Named(expected.losses, "commitment"));
    EXPECT_EQ(Named(out.metrics, "nonfinite"), 0);
    EXPECT_EQ(Named(out.metrics, "perplexity"),
              Named(expected.metrics, "perplexity"));
    (out.losses[0].second + out.vectors.sum()).backward();
    EXPECT_TRUE(z.grad().isfinite().all().item<bool>());
    EXPECT_EQ(z.grad().slice(1, 4).abs().max().item<float>(), 0);
    ASSERT_TRUE(padded->AfterStep(Train(step)).ok());
    ASSERT_TRUE(cut->AfterStep(Train(step)).ok());
    EXPECT_TRUE(
        at::equal(Buffer(*padded, "ema_count"), Buffer(*cut, "ema_count")));
    EXPECT_TRUE(at::equal(Buffer(*padded, "ema_sum"), Buffer(*cut, "ema_sum")));
  }
}

TEST(VqEmaTest, StateIsInTheBuffersAlone) {
  VqEmaConfig config = Config(40);
  config.set_decay(0.7);
  config.mutable_codebook()->set_revive_after(2);
  config.mutable_codebook()->set_usage_window(5);
  const auto run = [](Quantizer& q, int64_t first, int64_t last) {
    for (int64_t step = first; step < last; ++step) {
      for (int micro = 0; micro < 2; ++micro) {
        at::manual_seed(100 * step + micro);
        const at::Tensor z = at::randn({4, 6, 3}) + 0.3 * step;
        q.Quantize(z, Train(step));
        q.Quantize(z, QuantizeContext());
      }
      ASSERT_TRUE(q.AfterStep(Train(step)).ok());
    }
  };
  auto whole = Make(config, 3), first = Make(config, 3),
       second = Make(config, 3);
  run(*whole, 0, 14);
  run(*first, 0, 7);
  const std::vector<at::Tensor> saved = State(*first);
  std::vector<at::Tensor> buffers = second->buffers();
  ASSERT_EQ(saved.size(), buffers.size());
  for (size_t i = 0; i < saved.size(); ++i) buffers[i].copy_(saved[i]);
  run(*second, 7, 14);
  EXPECT_TRUE(SameBits(State(*whole), State(*second)));
  EXPECT_GT(Buffer(*whole, "history.revivals").sum().item<double>(), 0);
}

TEST(VqEmaTest, KMeansAndDataStartFromTheFirstBatch) {
  at::manual_seed(6);
  const at::Tensor centers = at::randn({8, 4}) * 10;
  const at::Tensor z =
      centers.repeat({20, 1}).view({8, 20, 4}) + 0.01 * at::randn({8, 20, 4});
  auto kmeans = Make(Config(8), 4);
  // Assignment alone initialises nothing.
  const std::vector<at::Tensor> before = State(*kmeans);
  kmeans->Quantize(z, QuantizeContext());
  EXPECT_TRUE(SameBits(before, State(*kmeans)));
  const Quantized out = kmeans->Quantize(z, Train(0));
  EXPECT_NEAR(Named(out.metrics, "perplexity"), 8, 1e-3);
  EXPECT_EQ(Named(out.metrics, "batch_usage"), 1);
  EXPECT_LT(Named(out.metrics, "quantization_error"), 0.01);
  const at::Tensor first = Buffer(*kmeans, "codebook").clone();
  ASSERT_TRUE(kmeans->AfterStep(Train(0)).ok());
  kmeans->Quantize(z + 100, Train(1));
  EXPECT_TRUE(at::allclose(Buffer(*kmeans, "codebook"), first, 1e-3, 1e-2));

  VqEmaConfig config = Config(8);
  config.mutable_codebook()->set_init(CodebookOptions::DATA);
  auto data = Make(config, 4);
  const Quantized picked = data->Quantize(z, Train(0));
  const at::Tensor codes = Buffer(*data, "codebook");
  EXPECT_EQ((codes.unsqueeze(1) - z.view({1, 160, 4}))
                .abs()
                .sum(2)
                .amin(1)
                .max()
                .item<float>(),
            0);
}

// One code: a mean over features that run away, from which it decays by 1 / 10,
// 2 / 11, ... and never by more than `decay`.
TEST(VqEmaTest, TheDecayWarmsUp) {
  at::manual_seed(12);
  for (const bool warm : {true, false}) {
    VqEmaConfig config = Config(1);
    config.set_decay(0.4);
    config.set_epsilon(1e-12);
    config.set_decay_warmup(warm);
    auto q = Make(config, 3);
    q->to(at::kDouble);
    at::Tensor mean;
    for (int64_t step = 0; step < 10; ++step) {
      const at::Tensor z =
          at::randn({2, 4, 3}, at::kDouble) + static_cast<double>(step);
      const at::Tensor own = z.view({8, 3}).mean(0);
      q->Quantize(z, Train(step));
      ASSERT_TRUE(q->AfterStep(Train(step)).ok());
      const double n = static_cast<double>(step);
      const double g = warm ? std::min(0.4, (1 + n) / (10 + n)) : 0.4;
      mean = step == 0 ? own : g * mean + (1 - g) * own;
      EXPECT_TRUE(at::allclose(Buffer(*q, "codebook").view({3}), mean, 1e-9))
          << step;
    }
  }
}

TEST(VqEmaTest, DeadCodesAreRevivedFromRecentFeatures) {
  at::manual_seed(7);
  VqEmaConfig config = Config(32);
  config.mutable_codebook()->set_init(CodebookOptions::RANDOM);
  config.set_decay(0.5);
  config.mutable_codebook()->set_revive_after(3);
  config.mutable_codebook()->set_usage_window(50);
  auto q = Make(config, 4);
  const auto batch = [] { return at::randn({8, 40, 4}) + 50; };
  double usage = 0, revivals = 0, batch_usage = 0;
  bool seen = false;
  for (int64_t step = 0; step < 40; ++step) {
    const Quantized out = q->Quantize(batch(), Train(step));
    usage = Named(out.metrics, "usage");
    revivals = Named(out.metrics, "revivals");
    batch_usage = Named(out.metrics, "batch_usage");
    if (step == 0) {
      EXPECT_LT(batch_usage, 0.3);  // All features are far from all codes.
    }
    const at::Tensor old = Buffer(*q, "history.last_revived").clone();
    ASSERT_TRUE(q->AfterStep(Train(step)).ok());
    const at::Tensor now = Buffer(*q, "history.last_revived") != old;
    if (!seen && now.any().item<bool>()) {
      seen = true;
      // What they became is a feature that was seen, not an average.
      const at::Tensor fresh = Buffer(*q, "codebook").index({now});
      const at::Tensor rows = Buffer(*q, "reservoir.rows");
      EXPECT_EQ(
          (fresh.unsqueeze(1) - rows).abs().sum(2).amin(1).max().item<float>(),
          0);
    }
  }
  EXPECT_TRUE(seen);
  EXPECT_GT(batch_usage, 0.8);
  EXPECT_GT(revivals, 20);
  // Revived codes do not count until the window has passed.
  EXPECT_LT(usage, 0.3);
  double late = 0;
  for (int64_t step = 40; step < 140; ++step) {
    late = Named(q->Quantize(batch(), Train(step)).metrics, "usage");
    ASSERT_TRUE(q->AfterStep(Train(step)).ok());
  }
  EXPECT_GT(late, usage);
}

TEST(VqEmaTest, EdgeInputsGiveValidCodes) {
  at::manual_seed(8);
  struct Case {
    std::string name;
    int64_t codes;
    at::Tensor features;
  };
  const std::vector<Case> cases = {
      {"equal", 8, at::ones({2, 5, 3})},
      {"zero", 8, at::zeros({2, 5, 3})},
      {"tiny", 8, at::randn({2, 5, 3}) * 1e-35},
      {"huge", 8, at::randn({2, 5, 3}) * 1e30},
      {"single vector", 8, at::randn({1, 1, 3})},
      {"one code", 1, at::randn({2, 5, 3})},
      {"one dimension", 8, at::randn({2, 5, 1})},
      {"no positions", 8, at::randn({2, 0, 3})},
  };
  for (const Case& c : cases) {
    for (auto metric : {CodebookOptions::L2, CodebookOptions::COSINE}) {
      for (auto estimator :
           {CodebookOptions::STRAIGHT_THROUGH, CodebookOptions::ROTATION}) {
        VqEmaConfig config = Config(c.codes);
        config.mutable_codebook()->set_metric(metric);
        config.mutable_codebook()->set_estimator(estimator);
        config.mutable_codebook()->set_revive_after(1);
        auto q = Make(config, c.features.size(2));
        for (int64_t step = 0; step < 4; ++step) {
          const Quantized out = q->Quantize(c.features, Train(step));
          ASSERT_TRUE(q->AfterStep(Train(step)).ok());
          EXPECT_TRUE(out.vectors.isfinite().all().item<bool>()) << c.name;
          if (out.codes.numel() > 0) {
            EXPECT_GE(out.codes.min().item<int64_t>(), 0) << c.name;
            EXPECT_LT(out.codes.max().item<int64_t>(), c.codes) << c.name;
          }
          for (const at::Tensor& buffer : q->buffers())
            EXPECT_TRUE(buffer.isfinite().all().item<bool>()) << c.name;
        }
      }
    }
  }
}

TEST(VqEmaTest, NonFiniteFeaturesAreCountedAndKeptOut) {
  at::manual_seed(9);
  auto q = Make(Config(4), 3);
  at::Tensor z = at::randn({2, 5, 3});
  z[0][1][2] = std::numeric_limits<float>::quiet_NaN();
  z[1][0][0] = std::numeric_limits<float>::infinity();
  const Quantized out = q->Quantize(z, Train(0));
  EXPECT_EQ(Named(out.metrics, "nonfinite"), 2);
  EXPECT_FALSE(std::isfinite(Named(out.losses, "commitment")));
  EXPECT_GE(out.codes.min().item<int64_t>(), 0);
  ASSERT_TRUE(q->AfterStep(Train(0)).ok());
  for (const at::Tensor& buffer : q->buffers())
    EXPECT_TRUE(buffer.isfinite().all().item<bool>());
}

TEST(VqEmaTest, Bfloat16FeaturesAreQuantisedInFloat32) {
  at::manual_seed(10);
  const at::Tensor z = at::randn({2, 5, 3}).to(at::kBFloat16);
  auto narrow = Make(Config(4), 3), wide = Make(Config(4), 3);
  const Quantized a = narrow->Quantize(z, Train(0));
  const Quantized b = wide->Quantize(z.to(at::kFloat), Train(0));
  EXPECT_EQ(a.vectors.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(a.vectors, b.vectors));
  EXPECT_TRUE(at::equal(a.codes, b.codes));
}

TEST(VqEmaTest, InfoAndContract) {
  auto q = Make(Config(12), 3);
  const CodebookInfo info = q->info();
  EXPECT_EQ(info.codes_per_group, std::vector<int64_t>{12});
  EXPECT_EQ(info.dim, 3);
  EXPECT_TRUE(info.has_codes && info.exact_lookup && info.passes_gradient);
  EXPECT_EQ(VqEmaContract("codebook", Config(12), {}).codes.codes_per_group,
            std::vector<int64_t>{12});
}

TEST(VqEmaTest, FrozenCodesStay) {
  at::manual_seed(11);
  VqEmaConfig config = Config(6);
  config.mutable_codebook()->set_revive_after(1);
  auto q = Make(config, 3);
  at::Tensor codes;
  for (int64_t step = 0; step < 4; ++step) {
    QuantizeContext context = Train(step);
    context.frozen = true;
    const Quantized out = q->Quantize(at::randn({2, 9, 3}) + step, context);
    // The first batch initialises them.
    if (step == 0) codes = Buffer(*q, "codebook").clone();
    ASSERT_TRUE(q->AfterStep(context).ok());
    EXPECT_TRUE(at::equal(Buffer(*q, "codebook"), codes));
    EXPECT_EQ(out.losses.size(), 1u);
    // What is measured goes on.
    EXPECT_EQ(Buffer(*q, "history.last_used").max().item<double>(), step);
  }
  q->Quantize(at::randn({2, 9, 3}), Train(4));
  ASSERT_TRUE(q->AfterStep(Train(4)).ok());
  EXPECT_FALSE(at::equal(Buffer(*q, "codebook"), codes));
}

TEST(VqEmaTest, BadInputIsRefused) {
  auto q = Make(Config(4), 3);
  EXPECT_THROW(q->Quantize(at::zeros({2, 5, 4}), {}), c10::Error);
  EXPECT_THROW(q->Quantize(at::zeros({5, 3}), {}), c10::Error);
  QuantizeContext context;
  context.valid = at::ones({5}, at::kBool);
  EXPECT_THROW(q->Quantize(at::zeros({2, 5, 3}), context), c10::Error);
  EXPECT_EQ(q->Lookup(at::zeros({2, 7, 1}, at::kLong)).sizes(),
            at::IntArrayRef({2, 7, 3}));
  EXPECT_THROW(q->Lookup(at::full({1, 1}, 4, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::full({1, 1}, -1, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::zeros({2, 2}, at::kLong)), c10::Error);
  EXPECT_THROW(q->Lookup(at::zeros({2, 1})), c10::Error);

  EXPECT_TRUE(ValidateVqEma(VqEmaConfig()).ok());
  VqEmaConfig bad;
  bad.set_num_codes(0);
  bad.set_decay(1);
  bad.set_epsilon(NAN);
  bad.mutable_codebook()->set_kmeans_iterations(-1);
  bad.mutable_codebook()->set_kmeans_samples(-1);
  bad.set_revive_threshold(0);
  bad.mutable_codebook()->set_revive_after(-1);
  bad.mutable_codebook()->set_reservoir(0);
  bad.mutable_codebook()->set_usage_window(0);
  const std::string message(ValidateVqEma(bad).message());
  for (const char* field :
       {"num_codes: got 0", "\ndecay: got 1", "\nepsilon: got nan",
        "\ncodebook.kmeans_iterations", "\ncodebook.kmeans_samples",
        "\nrevive_threshold", "\ncodebook.revive_after", "\ncodebook.reservoir",
        "\ncodebook.usage_window"}) {
    EXPECT_NE(message.find(field), std::string::npos) << field << message;
  }
  PluginContext nothing;
  EXPECT_EQ(MakeVqEma(VqEmaConfig(), nothing).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace semvq
