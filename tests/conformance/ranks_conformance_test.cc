// Two ranks with half a batch each against one with all of it: what quantizers
// owe of training on several ranks.

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/distributed/testing.h"
#include "core/forward/views.h"
#include "core/plugin/quantizer.h"
#include "google/protobuf/any.pb.h"
#include "protos/codebook.pb.h"
#include "tests/conformance/neutral.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;

constexpr int64_t kDim = 8;
constexpr int64_t kBatch = 3, kTokens = 12;  // Of a rank.
constexpr int64_t kSteps = 8;
constexpr double kTolerance = 1e-9;

// Sets a number that `config` has a field for, unless its plugin refuses it.
void TrySet(const PluginType& type, pb::Message& config, pb::Message& in,
            const std::string& name, double value) {
  const pb::FieldDescriptor* field = in.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) return;
  std::unique_ptr<pb::Message> before(in.New());
  before->CopyFrom(in);
  if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_INT64) {
    in.GetReflection()->SetInt64(&in, field, static_cast<int64_t>(value));
  } else {
    in.GetReflection()->SetDouble(&in, field, value);
  }
  if (!type.validate(config).ok()) in.CopyFrom(*before);
}

// Short memories, so that codes die and are revived within the few steps; in
// the plugin and those nested in it.
void Hasten(const PluginType& type, pb::Message& config) {
  TrySet(type, config, config, "decay", 0.2);
  const pb::Descriptor* d = config.GetDescriptor();
  for (int i = 0; i < d->field_count(); ++i) {
    const pb::FieldDescriptor* field = d->field(i);
    if (field->is_repeated() ||
        field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    if (field->message_type() == CodebookOptions::descriptor()) {
      pb::Message& options =
          *config.GetReflection()->MutableMessage(&config, field);
      TrySet(type, config, options, "revive_after", 2);
      TrySet(type, config, options, "reservoir", 24);
    } else if (field->message_type() == pb::Any::descriptor() &&
               config.GetReflection()->HasField(config, field)) {
      auto& any = static_cast<pb::Any&>(
          *config.GetReflection()->MutableMessage(&config, field));
      const PluginType* inner = PluginTypeOf(any);
      auto unpacked = UnpackConfig(any);
      ASSERT_TRUE(inner != nullptr && unpacked.ok());
      Hasten(*inner, **unpacked);
      any.PackFrom(**unpacked);
    }
  }
}

// What one rank, or the only one, did: by name, each step's values.
using Record = std::map<std::string, std::vector<at::Tensor>>;

class RanksConformance : public testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    auto neutral = Neutral::Create(GetParam());
    ASSERT_TRUE(neutral.ok()) << neutral.status();
    neutral_ = *std::move(neutral);
    const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(6);
    features_ =
        at::randn({kSteps, 2 * kBatch, kTokens, kDim}, generator, at::kDouble);
    // From the third step on all lie in one corner: most codes starve.
    features_.narrow(0, 2, kSteps - 2).mul_(0.05).add_(2);
    upstream_ = at::randn({2 * kBatch, kTokens, kDim}, generator, at::kDouble);
    // More of the second rank's positions than of the first's; at one step all
    // of the first's and none.
    valid_ = at::rand({kSteps, 2 * kBatch, kTokens}, generator) >
             at::tensor({0.1, 0.1, 0.1, 0.5, 0.5, 0.5}).view({1, -1, 1});
    valid_[4].narrow(0, 0, kBatch).fill_(true);
    valid_[4].narrow(0, kBatch, kBatch).fill_(false);
  }

  // In float64, the same each time.
  std::shared_ptr<Quantizer> Make() {
    std::shared_ptr<Quantizer> quantizer;
    Experiment copy = neutral_->experiment();
    neutral_->ForEachConfig(copy, [&](pb::Message& config) {
      Hasten(*GetParam().type, config);
      ContractBook book;
      Contract contract;
      contract.provides = {{kQuantized, kDim}};
      book.Add("subject", contract);
      PluginContext context;
      context.instance = "subject";
      context.seed = 3;
      context.book = &book;
      at::manual_seed(4);
      auto made = Registry::Global().Make<Quantizer>(config, context);
      ASSERT_TRUE(made.ok()) << made.status();
      quantizer = *made;
    });
    if (quantizer != nullptr) quantizer->to(at::kDouble);
    return quantizer;
  }

  // Trains on the images [first, first + images) of every step; gradients are
  // averaged over the ranks, as data-parallel training does.
  Record Train(Quantizer& quantizer, int64_t first, int64_t images,
               Communicator* group, bool masked, bool micro_steps) {
    Record record;
    QuantizeContext context;
    context.mode = QuantizeMode::kTrain;
    context.seed = 3;
    context.group = group;
    const auto keep = [&record](const std::string& name, const at::Tensor& t) {
      record[name].push_back(t.detach().clone());
    };
    const std::vector<at::Tensor> parameters = quantizer.parameters();
    for (int64_t step = 0; step < kSteps; ++step) {
      context.step = step;
      for (at::Tensor p : parameters) p.mutable_grad() = at::Tensor();
      // As accumulation has it: other features in the same step.
      for (int64_t micro = 0; micro < (micro_steps ? 2 : 1); ++micro) {
        context.draw_keys.clear();
        for (int64_t i = first; i < first + images; ++i)
          context.draw_keys.push_back(1000 * step + 100 * micro + i);
        if (masked) context.valid = valid_[step].narrow(0, first, images);
        const at::Tensor x = (features_[step].narrow(0, first, images) *
                              (1 + 0.3 * static_cast<double>(micro)))
                                 .clone()
                                 .requires_grad_();
        const Quantized out = quantizer.Quantize(x, context);
        // Losses of what reads the vectors are means over the batch.
        at::Tensor total =
            (out.vectors * upstream_.narrow(0, first, images)).sum() /
            static_cast<double>(images);
        for (const auto& [name, loss] : out.losses) {
          total = total + loss;
          keep("loss/" + name, loss);
        }
        if (total.requires_grad()) total.backward();
        keep("gradient/features",
             x.grad().defined() ? x.grad() / (group == nullptr ? 1.0 : 2.0)
                                : at::zeros_like(x));
        keep("vectors", out.vectors);
        if (out.codes.defined()) keep("codes", out.codes);
        for (const auto& [name, metric] : out.metrics)
          keep("metric/" + name, metric);
      }
      at::NoGradGuard no_grad;
      for (at::Tensor p : parameters) {
        if (!p.grad().defined()) continue;
        const at::Tensor gradient = MeanOverRanks(p.grad(), group);
        p.sub_(gradient, 0.05);
      }
      context.step = step + 1;
      const absl::Status status = quantizer.AfterStep(context);
      EXPECT_TRUE(status.ok()) << status;
      for (const auto& p : quantizer.named_parameters())
        keep("state/" + p.key(), p.value());
      for (const auto& b : quantizer.named_buffers())
        keep("state/" + b.key(), b.value());
      for (const auto& [name, value] : quantizer.CodeValues())
        keep("values/" + name, value);
    }
    return record;
  }

  // Trains both ways and compares.
  void Compare(bool masked, bool micro_steps) {
    const std::shared_ptr<Quantizer> single = Make();
    ASSERT_NE(single, nullptr);
    const Record expected =
        Train(*single, 0, 2 * kBatch, nullptr, masked, micro_steps);
    std::vector<std::shared_ptr<Quantizer>> quantizers = {Make(), Make()};
    std::vector<Record> ranks(2);
    RunRanks(2, [&](Communicator& group) {
      const int64_t rank = group.rank();
      ranks[rank] = Train(*quantizers[rank], rank * kBatch, kBatch, &group,
                          masked, micro_steps);
    });
    ASSERT_EQ(ranks[0].size(), expected.size());
    for (const auto& [name, values] : expected) {
      for (size_t i = 0; i < values.size(); ++i) {
        SCOPED_TRACE(absl::StrCat(name, ", ", i));
        const at::Tensor& a = ranks[0][name].at(i);
        const at::Tensor& b = ranks[1][name].at(i);
        at::Tensor both;
        if (absl::StartsWith(name, "loss/")) {
          both = (a + b) / 2;
        } else if (name == "vectors" || name == "codes" ||
                   absl::StartsWith(name, "gradient/")) {
          both = at::cat({a, b});
        } else {
          // Learned or reported: the same bits on every rank.
          EXPECT_TRUE(at::equal(a, b));
          both = a;
        }
        ASSERT_EQ(both.sizes(), values[i].sizes());
        const double largest =
            values[i].numel() == 0
                ? 0
                : values[i].abs().max().to(at::kDouble).item<double>();
        // Metrics are float32.
        const double tolerance =
            values[i].scalar_type() == at::kDouble ? kTolerance : 1e-5;
        const at::Tensor difference = (both - values[i]).abs();
        ASSERT_TRUE(difference.numel() == 0 ||
                    difference.max().to(at::kDouble).item<double>() <=
                        tolerance * (1 + largest))
            << both << "\nexpected\n"
            << values[i];
      }
    }
    Revived(expected);
  }

  // Whether a case that revives codes did so: without, little is compared.
  void Revived(const Record& record) {
    bool revives = false;
    Experiment copy = neutral_->experiment();
    neutral_->ForEachConfig(copy, [&](pb::Message& config) {
      Hasten(*GetParam().type, config);
      const auto* field = config.GetDescriptor()->FindFieldByName("codebook");
      if (field == nullptr ||
          field->message_type() != CodebookOptions::descriptor()) {
        return;
      }
      revives = static_cast<const CodebookOptions&>(
                    config.GetReflection()->GetMessage(config, field))
                    .has_revive_after();
    });
    if (!revives) return;
    EXPECT_GT(record.at("metric/revivals").back().item<double>(), 0);
  }

  std::unique_ptr<Neutral> neutral_;
  at::Tensor features_, upstream_, valid_;
};

TEST_P(RanksConformance, TwoRanksAreOneWithTwiceTheBatch) {
  Compare(/*masked=*/false, /*micro_steps=*/false);
}

// Ranks with unequal numbers of valid positions, at one step with none.
TEST_P(RanksConformance, UnequalPartsOfTheBatch) {
  Compare(/*masked=*/true, /*micro_steps=*/false);
}

TEST_P(RanksConformance, SeveralMicroSteps) {
  Compare(/*masked=*/true, /*micro_steps=*/true);
}

INSTANTIATE_TEST_SUITE_P(
    All, RanksConformance,
    testing::ValuesIn(ConformanceCases(PluginKind::kQuantizer)),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

}  // namespace
}  // namespace semvq
