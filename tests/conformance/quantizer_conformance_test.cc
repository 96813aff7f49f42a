// What every quantizer owes. What one cannot, its CodebookInfo says.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/plugin/quantizer.h"
#include "google/protobuf/any.pb.h"
#include "tests/conformance/neutral.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 8;

// Sets the field num_codes of a quantizer's config and of those nested in it.
// False: it has none.
bool SetNumCodes(google::protobuf::Message& config, int64_t num_codes) {
  bool found = false;
  const google::protobuf::Reflection* r = config.GetReflection();
  const google::protobuf::Descriptor* d = config.GetDescriptor();
  for (int i = 0; i < d->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = d->field(i);
    if (field->name() == "num_codes") {
      r->SetInt64(&config, field, num_codes);
      found = true;
    } else if (!field->is_repeated() &&
               field->cpp_type() ==
                   google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE &&
               field->message_type() == google::protobuf::Any::descriptor() &&
               r->HasField(config, field)) {
      auto& any = static_cast<google::protobuf::Any&>(
          *r->MutableMessage(&config, field));
      auto inner = UnpackConfig(any);
      if (!inner.ok() || !SetNumCodes(**inner, num_codes)) continue;
      any.PackFrom(**inner);
      found = true;
    }
  }
  return found;
}

class QuantizerConformance : public testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    auto neutral = Neutral::Create(GetParam());
    ASSERT_TRUE(neutral.ok()) << neutral.status();
    neutral_ = *std::move(neutral);
    generator_ = at::make_generator<at::CPUGeneratorImpl>(5);
  }

  // The case's quantizer alone, on features of dimension `dim`. `num_codes`
  // sets the field of that name, where there is one.
  std::shared_ptr<Quantizer> Make(int64_t dim = kDim, int64_t num_codes = 0) {
    std::shared_ptr<Quantizer> quantizer;
    Experiment copy = neutral_->experiment();
    neutral_->ForEachConfig(copy, [&](google::protobuf::Message& config) {
      if (num_codes > 0) SetNumCodes(config, num_codes);
      EXPECT_TRUE(GetParam().type->validate(config).ok());
      const ContractBook book = BookOf(dim);
      PluginContext context;
      context.instance = "subject";
      context.seed = 3;
      context.book = &book;
      at::manual_seed(4);
      auto made = Registry::Global().Make<Quantizer>(config, context);
      EXPECT_TRUE(made.ok()) << made.status();
      if (made.ok()) quantizer = *made;
    });
    return quantizer;
  }

  // Whether its contract lets features have this dimension.
  bool Takes(int64_t dim) {
    bool takes = false;
    Experiment copy = neutral_->experiment();
    neutral_->ForEachConfig(copy, [&](google::protobuf::Message& config) {
      const Contract contract =
          GetParam().type->contract("subject", config, BookOf(dim));
      const ProvidedView* own = contract.Find(kQuantized);
      takes = own == nullptr || own->dim == 0 || own->dim == dim;
    });
    return takes;
  }

  // What is known of the quantizer "subject" before it says anything.
  static ContractBook BookOf(int64_t dim) {
    ContractBook book;
    Contract contract;
    contract.provides = {{kQuantized, dim}};
    book.Add("subject", contract);
    return book;
  }

  at::Tensor Features(int64_t batch, int64_t tokens, int64_t dim = kDim,
                      at::ScalarType type = at::kFloat) {
    return at::randn({batch, tokens, dim}, generator_, at::kDouble).to(type);
  }

  static QuantizeContext Context(QuantizeMode mode, int64_t step = 0) {
    QuantizeContext context;
    context.mode = mode;
    context.seed = 3;
    context.step = step;
    return context;
  }

  static Quantized Step(Quantizer& quantizer, const at::Tensor& features,
                        int64_t step) {
    Quantized out =
        quantizer.Quantize(features, Context(QuantizeMode::kTrain, step));
    AfterStep(quantizer, step);
    return out;
  }

  static void AfterStep(Quantizer& quantizer, int64_t step) {
    at::NoGradGuard no_grad;
    const absl::Status status =
        quantizer.AfterStep(Context(QuantizeMode::kTrain, step + 1));
    EXPECT_TRUE(status.ok()) << status;
  }

  // A quantizer that has seen a few batches.
  std::shared_ptr<Quantizer> Trained(int64_t dim = kDim,
                                     int64_t num_codes = 0) {
    std::shared_ptr<Quantizer> quantizer = Make(dim, num_codes);
    for (int64_t step = 0; quantizer != nullptr && step < 4; ++step)
      Step(*quantizer, Features(2, 16, dim), step);
    return quantizer;
  }

  static void ExpectValidCodes(const CodebookInfo& info, const Quantized& out,
                               const at::Tensor& features) {
    EXPECT_EQ(out.vectors.sizes(), features.sizes());
    if (!info.has_codes) {
      EXPECT_TRUE(info.codes_per_group.empty());
      return;
    }
    const int64_t groups = static_cast<int64_t>(info.codes_per_group.size());
    ASSERT_TRUE(out.codes.defined());
    ASSERT_EQ(out.codes.scalar_type(), at::kLong);
    ASSERT_EQ(
        out.codes.sizes().vec(),
        (std::vector<int64_t>{features.size(0), features.size(1), groups}));
    for (int64_t g = 0; g < groups; ++g) {
      const at::Tensor codes = out.codes.select(2, g);
      // A group may be left out of a whole training batch, but not the first.
      if (g > 0 && codes.eq(-1).all().item<bool>()) continue;
      EXPECT_GE(codes.min().item<int64_t>(), 0);
      EXPECT_LT(codes.max().item<int64_t>(), info.codes_per_group[g]);
    }
  }

  std::unique_ptr<Neutral> neutral_;
  at::Generator generator_;
};

TEST_P(QuantizerConformance, InfoIsWhatTheContractSays) {
  const std::shared_ptr<Quantizer> quantizer = Make();
  ASSERT_NE(quantizer, nullptr);
  const CodebookInfo info = quantizer->info();
  EXPECT_EQ(info.has_codes, !info.codes_per_group.empty());
  EXPECT_EQ(info.dim, kDim);
  Experiment copy = neutral_->experiment();
  neutral_->ForEachConfig(copy, [&](google::protobuf::Message& config) {
    const CodeSpec codes =
        GetParam().type->contract("subject", config, BookOf(kDim)).codes;
    EXPECT_EQ(codes.codes_per_group, info.codes_per_group);
    EXPECT_EQ(codes.exact_lookup, info.exact_lookup);
  });
}

TEST_P(QuantizerConformance, CodesAreInRangeAndLookUpGivesTheVectors) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const CodebookInfo info = quantizer->info();
  for (const QuantizeMode mode :
       {QuantizeMode::kTrain, QuantizeMode::kAssignOnly}) {
    const at::Tensor features = Features(2, 20);
    const Quantized out = quantizer->Quantize(features, Context(mode));
    ExpectValidCodes(info, out, features);
    if (!info.has_codes) continue;
    const at::Tensor looked_up = quantizer->Lookup(out.codes);
    ASSERT_EQ(looked_up.sizes(), out.vectors.sizes());
    // The flag is about training; assignment is always exact.
    EXPECT_EQ(at::equal(looked_up.detach(), out.vectors.detach()),
              info.exact_lookup || mode == QuantizeMode::kAssignOnly);
  }
}

TEST_P(QuantizerConformance, IsIdempotent) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  // Declared: a vector need not be its own code's.
  if (!quantizer->info().has_codes || !quantizer->info().idempotent) return;
  const auto assign = [&](const at::Tensor& z) {
    return quantizer->Quantize(z, Context(QuantizeMode::kAssignOnly));
  };
  const Quantized once = assign(Features(2, 20));
  const Quantized twice = assign(once.vectors.detach());
  EXPECT_TRUE(at::equal(once.codes, twice.codes));
  EXPECT_TRUE(at::equal(once.vectors, twice.vectors));
}

TEST_P(QuantizerConformance, AssigningLearnsNothing) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const at::Tensor features = Features(2, 20);
  const auto assign = [&] {
    return quantizer->Quantize(features, Context(QuantizeMode::kAssignOnly));
  };
  std::vector<at::Tensor> before;
  for (const at::Tensor& b : quantizer->buffers()) before.push_back(b.clone());
  const Quantized first = assign();
  EXPECT_TRUE(first.losses.empty());
  EXPECT_TRUE(first.metrics.empty());
  const std::vector<at::Tensor> after = quantizer->buffers();
  for (size_t i = 0; i < after.size(); ++i)
    EXPECT_TRUE(at::equal(before[i], after[i]));
  EXPECT_TRUE(at::equal(first.vectors, assign().vectors));
}

TEST_P(QuantizerConformance, WhatIsNotValidCountsNowhere) {
  const std::shared_ptr<Quantizer> a = Make(), b = Make();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  at::Tensor features = Features(3, 20);
  QuantizeContext context = Context(QuantizeMode::kTrain);
  context.valid = at::ones({3, 20}, at::kBool);
  context.valid.narrow(1, 15, 5).fill_(false);
  at::Tensor other = features.clone();
  other.narrow(1, 15, 5).fill_(50.0);
  for (int64_t step = 0; step < 3; ++step) {
    context.step = step;
    const Quantized left = a->Quantize(features, context);
    const Quantized right = b->Quantize(other, context);
    if (left.codes.defined()) {
      EXPECT_TRUE(left.codes.narrow(1, 15, 5).eq(-1).all().item<bool>());
      EXPECT_TRUE(at::equal(left.codes, right.codes));
    }
    ASSERT_EQ(left.losses.size(), right.losses.size());
    for (size_t i = 0; i < left.losses.size(); ++i) {
      EXPECT_TRUE(at::equal(left.losses[i].second, right.losses[i].second))
          << left.losses[i].first;
    }
    QuantizeContext after = context;
    after.step = step + 1;
    at::NoGradGuard no_grad;
    ASSERT_TRUE(a->AfterStep(after).ok());
    ASSERT_TRUE(b->AfterStep(after).ok());
  }
  const auto left = a->named_buffers(), right = b->named_buffers();
  for (const auto& item : left)
    EXPECT_TRUE(at::equal(item.value(), right[item.key()])) << item.key();
}

TEST_P(QuantizerConformance, PassesTheGradientItPromises) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const at::Tensor features = Features(2, 20).requires_grad_();
  const Quantized out =
      quantizer->Quantize(features, Context(QuantizeMode::kTrain, 4));
  const at::Tensor weights = Features(2, 20);
  at::Tensor gradient;
  if (out.vectors.requires_grad()) {
    gradient = torch::autograd::grad({(out.vectors * weights).sum()},
                                     {features}, {}, true, false, true)[0];
  }
  const bool passes =
      gradient.defined() && gradient.abs().sum().item<double>() > 0;
  EXPECT_EQ(passes, quantizer->info().passes_gradient);
  if (gradient.defined()) {
    EXPECT_TRUE(gradient.isfinite().all().item<bool>());
  }
}

// Along a random direction in every leaf that autograd says a loss depends on;
// stop-gradients cut the others off, and so do not disturb.
TEST_P(QuantizerConformance, LossesHaveTheGradientTheyClaim) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  quantizer->to(at::kDouble);
  at::Tensor features = Features(2, 10, kDim, at::kDouble).requires_grad_();
  std::vector<std::pair<std::string, at::Tensor>> leaves = {
      {"features", features}};
  for (const auto& p : quantizer->named_parameters())
    leaves.emplace_back(p.key(), p.value());
  const auto losses = [&] {
    return quantizer->Quantize(features, Context(QuantizeMode::kTrain, 4))
        .losses;
  };
  const NamedTensors at_start = losses();
  for (const std::string& name : quantizer->EstimatedLosses()) {
    EXPECT_TRUE(
        std::any_of(at_start.begin(), at_start.end(),
                    [&](const auto& loss) { return loss.first == name; }))
        << "there is no loss " << name;
  }
  for (size_t l = 0; l < at_start.size(); ++l) {
    EXPECT_EQ(at_start[l].second.dim(), 0) << at_start[l].first;
    EXPECT_EQ(at_start[l].second.scalar_type(), at::kDouble)
        << at_start[l].first;
    if (!at_start[l].second.requires_grad()) continue;
    const std::vector<std::string> estimated = quantizer->EstimatedLosses();
    if (std::find(estimated.begin(), estimated.end(), at_start[l].first) !=
        estimated.end()) {
      continue;  // Declared.
    }
    for (auto& [name, leaf] : leaves) {
      SCOPED_TRACE(absl::StrCat(at_start[l].first, " by ", name));
      // Anew for each leaf: moving the last one has changed what it saved.
      const at::Tensor gradient =
          torch::autograd::grad({losses()[l].second}, {leaf}, {}, false, false,
                                /*allow_unused=*/true)[0];
      if (!gradient.defined()) continue;
      const at::Tensor direction =
          at::randn(leaf.sizes(), generator_, leaf.options());
      constexpr double kStep = 1e-6;
      const auto moved = [&](double by) {
        at::NoGradGuard no_grad;
        leaf.add_(direction, by);
        const double value = losses()[l].second.item<double>();
        leaf.sub_(direction, by);
        return value;
      };
      const double numeric = (moved(kStep) - moved(-kStep)) / (2 * kStep);
      const double analytic = (gradient * direction).sum().item<double>();
      EXPECT_NEAR(numeric, analytic, 1e-6 * std::max(1.0, std::abs(numeric)));
    }
  }
}

TEST_P(QuantizerConformance, FrozenCodesStay) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const at::Tensor features = Features(2, 20);
  const auto assign = [&] {
    return quantizer->Quantize(features, Context(QuantizeMode::kAssignOnly));
  };
  const Quantized before = assign();
  for (int64_t step = 4; step < 10; ++step) {
    QuantizeContext context = Context(QuantizeMode::kTrain, step);
    context.frozen = true;
    quantizer->Quantize(Features(2, 16) + 3, context);
    context.step = step + 1;
    at::NoGradGuard no_grad;
    ASSERT_TRUE(quantizer->AfterStep(context).ok());
  }
  const Quantized after = assign();
  EXPECT_TRUE(at::equal(before.vectors, after.vectors));
  if (before.codes.defined()) {
    EXPECT_TRUE(at::equal(before.codes, after.codes));
  }
}

TEST_P(QuantizerConformance, FrozenInAnExperimentItsCodesStay) {
  Experiment experiment = neutral_->experiment();
  for (QuantizerConfig& quantizer : *experiment.mutable_quantizers())
    quantizer.set_frozen(true);
  ASSERT_TRUE(neutral_->Validate(experiment).ok());
  auto trainer = neutral_->MakeTrainer(experiment, FreshFolder("frozen"));
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  auto batches = neutral_->Batches(4);
  ASSERT_TRUE(batches.ok()) << batches.status();
  // The first step may initialise them.
  ASSERT_TRUE((*trainer)->Step({(*batches)[0]}).ok());
  for (const Model::QuantizerEntry& entry : (*trainer)->model().quantizers()) {
    Quantizer& quantizer = entry.views->quantizer();
    const at::Tensor features = Features(2, 9, quantizer.info().dim);
    const auto assign = [&] {
      at::NoGradGuard no_grad;
      return quantizer.Quantize(features, Context(QuantizeMode::kAssignOnly))
          .vectors;
    };
    const at::Tensor before = assign();
    for (int64_t step = 1; step < 4; ++step) {
      auto report = (*trainer)->Step({(*batches)[step]});
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_EQ(report->nonfinite, "");
    }
    EXPECT_TRUE(at::equal(before, assign()));
    for (const at::Tensor& p : quantizer.parameters())
      EXPECT_FALSE(p.requires_grad());
  }
}

TEST_P(QuantizerConformance, StateIsAllOfIt) {
  const std::shared_ptr<Quantizer> a = Trained(), b = Make();
  ASSERT_TRUE(a != nullptr && b != nullptr);
  {
    at::NoGradGuard no_grad;
    const auto copy = [](const auto& from, auto to) {
      for (auto& item : to) item.value().copy_(from[item.key()]);
    };
    copy(a->named_parameters(), b->named_parameters());
    copy(a->named_buffers(), b->named_buffers());
  }
  for (int64_t step = 4; step < 8; ++step) {
    const at::Tensor features = Features(2, 16);
    const Quantized left = Step(*a, features, step);
    const Quantized right = Step(*b, features, step);
    EXPECT_TRUE(at::equal(left.vectors, right.vectors)) << step;
    if (left.codes.defined()) {
      EXPECT_TRUE(at::equal(left.codes, right.codes)) << step;
    }
  }
  const auto left = a->named_buffers(), right = b->named_buffers();
  for (const auto& item : left)
    EXPECT_TRUE(at::equal(item.value(), right[item.key()])) << item.key();
}

struct Degenerate {
  const char* name;
  at::Tensor features;
  bool finite = true;    // Losses and metrics must be finite, too.
  bool gradient = true;  // So must the gradient.
};

TEST_P(QuantizerConformance, SurvivesDegenerateInput) {
  const std::vector<Degenerate> inputs = {
      {"all equal", at::ones({2, 8, kDim})},
      {"all zero", at::zeros({2, 8, kDim})},
      {"tiny", Features(2, 8) * 1e-30},
      // Normalising has a gradient of 1 / length, beyond any float there.
      {"smallest", at::full({2, 8, kDim}, 1e-45), true, false},
      {"one vector", Features(1, 1)},
      {"fewer vectors than codes", Features(1, 3)},
      {"huge", at::full({2, 8, kDim}, 1e30), false},
      {"huge and unequal", Features(2, 8) * 1e30, false},
  };
  for (const Degenerate& input : inputs) {
    SCOPED_TRACE(input.name);
    for (const bool trained : {false, true}) {
      const std::shared_ptr<Quantizer> quantizer = trained ? Trained() : Make();
      ASSERT_NE(quantizer, nullptr);
      const CodebookInfo info = quantizer->info();
      for (int64_t step = 4; step < 8; ++step) {
        at::Tensor features = input.features.clone().requires_grad_();
        const Quantized out =
            quantizer->Quantize(features, Context(QuantizeMode::kTrain, step));
        ExpectValidCodes(info, out, features);
        EXPECT_FALSE(out.vectors.isnan().any().item<bool>());
        if (!input.finite) {
          AfterStep(*quantizer, step);
          continue;
        }
        EXPECT_TRUE(out.vectors.isfinite().all().item<bool>());
        at::Tensor sum = out.vectors.sum();
        for (const auto& [name, loss] : out.losses) {
          EXPECT_TRUE(loss.isfinite().item<bool>()) << name;
          sum = sum + loss;
        }
        for (const auto& [name, metric] : out.metrics)
          EXPECT_TRUE(metric.isfinite().all().item<bool>()) << name;
        if (sum.requires_grad()) sum.backward();
        if (input.gradient && features.grad().defined()) {
          EXPECT_TRUE(features.grad().isfinite().all().item<bool>());
        }
        AfterStep(*quantizer, step);
      }
      // It has not been spoilt for good.
      const at::Tensor features = Features(2, 16);
      const Quantized out =
          quantizer->Quantize(features, Context(QuantizeMode::kAssignOnly));
      ExpectValidCodes(info, out, features);
      EXPECT_FALSE(out.vectors.isnan().any().item<bool>());
    }
  }
}

TEST_P(QuantizerConformance, NotANumberIsNotSpread) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  at::Tensor features = Features(2, 16);
  features[0][3][2] = std::nan("");
  features[1][5].fill_(std::numeric_limits<float>::infinity());
  const Quantized out = Step(*quantizer, features, 4);
  ExpectValidCodes(quantizer->info(), out, features);
  if (quantizer->info().has_codes) {
    double counted = -1;
    for (const auto& [name, metric] : out.metrics) {
      if (name == "nonfinite") counted = metric.item<double>();
    }
    EXPECT_EQ(counted, 2);
  }
  for (const at::Tensor& buffer : quantizer->buffers()) {
    EXPECT_FALSE(buffer.is_floating_point() &&
                 buffer.isnan().any().item<bool>());
  }
  const at::Tensor next = Features(2, 16);
  EXPECT_TRUE(Step(*quantizer, next, 5).vectors.isfinite().all().item<bool>());
}

// Where the rotation from feature to code has no axis.
TEST_P(QuantizerConformance, FeaturesOppositeToTheirVectors) {
  for (const int64_t codes : {0, 1}) {
    const std::shared_ptr<Quantizer> quantizer = Trained(kDim, codes);
    ASSERT_NE(quantizer, nullptr);
    const at::Tensor vectors =
        quantizer->Quantize(Features(2, 6), Context(QuantizeMode::kAssignOnly))
            .vectors;
    const at::Tensor features = (-vectors.detach()).requires_grad_();
    const Quantized out =
        quantizer->Quantize(features, Context(QuantizeMode::kTrain, 4));
    EXPECT_TRUE(out.vectors.isfinite().all().item<bool>());
    if (!out.vectors.requires_grad()) continue;
    const at::Tensor gradient = torch::autograd::grad(
        {(out.vectors * Features(2, 6)).sum()}, {features}, {}, false, false,
        /*allow_unused=*/true)[0];
    if (gradient.defined()) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    }
  }
}

TEST_P(QuantizerConformance, OneCodeOneDimension) {
  for (const auto& [dim, codes] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 0}, {kDim, 1}, {1, 1}}) {
    SCOPED_TRACE(absl::StrCat("D=", dim, " K=", codes));
    if (!Takes(dim)) continue;  // Declared.
    const std::shared_ptr<Quantizer> quantizer = Trained(dim, codes);
    ASSERT_NE(quantizer, nullptr);
    const at::Tensor features = Features(2, 6, dim);
    const Quantized out = Step(*quantizer, features, 4);
    ExpectValidCodes(quantizer->info(), out, features);
    EXPECT_TRUE(out.vectors.isfinite().all().item<bool>());
  }
}

TEST_P(QuantizerConformance, LookupRefusesCodesOutOfRange) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const CodebookInfo info = quantizer->info();
  if (!info.has_codes) return;  // Declared.
  const int64_t groups = static_cast<int64_t>(info.codes_per_group.size());
  at::Tensor codes = at::zeros({2, 3, groups}, at::kLong);
  EXPECT_EQ(quantizer->Lookup(codes).sizes().vec(),
            (std::vector<int64_t>{2, 3, kDim}));
  for (const int64_t code : {info.codes_per_group[0], int64_t{-2}}) {
    codes[1][2][0] = code;
    try {
      quantizer->Lookup(codes);
      ADD_FAILURE() << "code " << code << " was looked up";
    } catch (const c10::Error& e) {
      const std::string message = e.what();
      EXPECT_NE(message.find("quantizer subject"), std::string::npos)
          << message;
      EXPECT_NE(message.find(absl::StrCat("code ", code, " is out of range")),
                std::string::npos)
          << message;
    }
  }
}

TEST_P(QuantizerConformance, MoreCodesThanInt32AreRefused) {
  const int64_t codes = int64_t{std::numeric_limits<int32_t>::max()} + 1;
  Experiment experiment = neutral_->experiment();
  bool counted = false;
  neutral_->ForEachConfig(experiment, [&](google::protobuf::Message& config) {
    counted = SetNumCodes(config, codes);
  });
  if (!counted) return;  // Its codes have another field, or there are none.
  const absl::Status status = neutral_->Validate(experiment);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("num_codes: got 2147483648"),
            std::string::npos)
      << status;
}

TEST_P(QuantizerConformance, ReportsHowItsCodesAreUsed) {
  const std::shared_ptr<Quantizer> quantizer = Trained();
  ASSERT_NE(quantizer, nullptr);
  const CodebookInfo info = quantizer->info();
  const Quantized out = Step(*quantizer, Features(2, 16), 4);
  std::map<std::string, double> metrics;
  for (const auto& [name, metric] : out.metrics) {
    ASSERT_EQ(metric.dim(), 0) << name;
    EXPECT_TRUE(metrics.emplace(name, metric.item<double>()).second) << name;
  }
  EXPECT_EQ(metrics.count("nonfinite"), 1u);
  const NamedTensors values = quantizer->CodeValues();
  if (!info.has_codes) {
    EXPECT_TRUE(values.empty());
    return;
  }
  for (const char* name :
       {"perplexity", "batch_usage", "usage", "dead_codes", "revivals",
        "code_age_mean", "code_age_max", "quantization_error"}) {
    EXPECT_EQ(metrics.count(name), 1u) << name;
  }
  EXPECT_GE(metrics["quantization_error"], 0);
  const auto ends_in = [&values](const std::string& what) {
    return std::count_if(values.begin(), values.end(), [&](const auto& v) {
      return absl::EndsWith(v.first, what);
    });
  };
  EXPECT_GT(ends_in("code_counts"), 0);
  EXPECT_EQ(ends_in("code_counts"), ends_in("code_age"));
  if (info.codes_per_group.size() > 1) return;  // Of its parts: their own.

  const at::Tensor counts =
      at::bincount(out.codes.flatten(), {}, info.codes_per_group[0]);
  const at::Tensor share = counts.to(at::kDouble) / out.codes.numel();
  EXPECT_NEAR(metrics["perplexity"],
              std::exp(-at::xlogy(share, share).sum().item<double>()), 1e-4);
  EXPECT_NEAR(metrics["batch_usage"],
              counts.gt(0).to(at::kDouble).mean().item<double>(), 1e-6);
  // Revived codes are in neither.
  EXPECT_LE(metrics["usage"] + metrics["dead_codes"], 1 + 1e-6);
  ASSERT_EQ(values.size(), 2u);
  EXPECT_TRUE(at::equal(values[0].second.to(at::kLong), counts));
  EXPECT_TRUE(at::equal(values[1].second.eq(0), counts.gt(0)));
}

TEST_P(QuantizerConformance, RefusesFeaturesOfAnotherDimension) {
  const std::shared_ptr<Quantizer> quantizer = Make();
  ASSERT_NE(quantizer, nullptr);
  try {
    quantizer->Quantize(Features(2, 4, kDim + 1),
                        Context(QuantizeMode::kTrain));
    FAIL() << "features of dimension " << kDim + 1 << " were taken";
  } catch (const c10::Error& e) {
    EXPECT_NE(std::string(e.what()).find("subject"), std::string::npos)
        << "the message does not name the quantizer: " << e.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, QuantizerConformance,
    testing::ValuesIn(ConformanceCases(PluginKind::kQuantizer)),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

}  // namespace
}  // namespace semvq
