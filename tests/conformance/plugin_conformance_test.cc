// What every plugin owes, of whatever kind.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/config/validate.h"
#include "core/forward/forward.h"
#include "tests/conformance/neutral.h"
#include "trainer/losses.h"

namespace semvq {
namespace {

class PluginConformance : public testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    auto neutral = Neutral::Create(GetParam());
    ASSERT_TRUE(neutral.ok()) << neutral.status();
    neutral_ = *std::move(neutral);
  }

  // A trainer after `steps` steps on the batches from `first` on.
  std::unique_ptr<Trainer> Train(const std::string& folder,
                                 const std::vector<Batch>& batches) {
    auto trainer = neutral_->MakeTrainer(neutral_->experiment(), folder);
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    if (!trainer.ok()) return nullptr;
    Advance(**trainer, batches);
    return *std::move(trainer);
  }

  static std::vector<NamedTensors> Advance(Trainer& trainer,
                                           const std::vector<Batch>& batches) {
    std::vector<NamedTensors> values;
    for (const Batch& batch : batches) {
      auto report = trainer.Step({batch});
      EXPECT_TRUE(report.ok()) << report.status();
      if (!report.ok()) break;
      EXPECT_EQ(report->nonfinite, "");
      values.push_back(report->values);
    }
    return values;
  }

  // The plugin's own parameters: those of a quantizer's projections are not.
  std::map<std::string, at::Tensor> Parameters(Model& model) const {
    std::map<std::string, at::Tensor> own;
    for (const auto& p : model.named_parameters()) {
      for (const std::string& instance : neutral_->instances()) {
        const std::string prefix =
            GetParam().type->kind == PluginKind::kQuantizer
                ? absl::StrCat(instance, ".quantizer.")
                : absl::StrCat(instance, ".");
        if (absl::StartsWith(p.key(), prefix)) own[p.key()] = p.value();
      }
    }
    return own;
  }

  static std::map<std::string, at::Tensor> State(Model& model) {
    std::map<std::string, at::Tensor> state;
    for (const auto& p : model.named_parameters()) state[p.key()] = p.value();
    for (const auto& b : model.named_buffers()) state[b.key()] = b.value();
    return state;
  }

  static void ExpectSameState(Model& a, Model& b) {
    const std::map<std::string, at::Tensor> left = State(a), right = State(b);
    ASSERT_EQ(left.size(), right.size());
    for (const auto& [name, value] : left) {
      ASSERT_TRUE(right.count(name)) << name;
      EXPECT_TRUE(at::equal(value, right.at(name))) << name;
    }
  }

  static void ExpectSameValues(const std::vector<NamedTensors>& a,
                               const std::vector<NamedTensors>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].size(), b[i].size());
      for (size_t j = 0; j < a[i].size(); ++j) {
        EXPECT_EQ(a[i][j].first, b[i][j].first);
        EXPECT_TRUE(at::equal(a[i][j].second, b[i][j].second))
            << a[i][j].first << " at step " << i;
      }
    }
  }

  std::unique_ptr<Neutral> neutral_;
};

TEST_P(PluginConformance, SaysInOneLineWhatItIs) {
  const std::string doc = GetParam().type->doc();
  EXPECT_GT(doc.size(), 10u)
      << GetParam().type->name() << " has no (semvq.plugin_doc)";
  EXPECT_FALSE(absl::StrContains(doc, "\n"));
}

TEST_P(PluginConformance, ContractIsPureAndStandsAlone) {
  const PluginType& type = *GetParam().type;
  auto book = BuildContracts(neutral_->experiment());
  ASSERT_TRUE(book.ok()) << book.status();
  const auto text = [](const Contract& c) {
    std::string s;
    for (const auto& p : c.provides) absl::StrAppend(&s, p.view, p.dim, ";");
    for (const auto& n : c.needs)
      absl::StrAppend(&s, n.field, n.instance, n.view, n.dim, ";");
    for (int64_t k : c.codes.codes_per_group) absl::StrAppend(&s, k, ";");
    for (const auto& f : c.files) absl::StrAppend(&s, f.field, f.path, ";");
    for (const auto& k : c.batch_keys) absl::StrAppend(&s, k, ";");
    return s;
  };
  Experiment copy = neutral_->experiment();
  neutral_->ForEachConfig(copy, [&](google::protobuf::Message& config) {
    const std::string before = config.SerializeAsString();
    const std::string& instance = neutral_->instances()[0];
    EXPECT_EQ(text(type.contract(instance, config, *book)),
              text(type.contract(instance, config, *book)));
    // Before its neighbours are known: the list of files is asked for so.
    type.contract(instance, config, ContractBook());
    EXPECT_EQ(type.validate(config), type.validate(config));
    EXPECT_EQ(config.SerializeAsString(), before);
  });
  // The default config too has a contract, valid or not.
  type.contract("x", *type.prototype, ContractBook());
}

TEST_P(PluginConformance, MakeRefusesAnotherKind) {
  // Through the registry, as everything is made.
  PluginContext context;
  const Registry& registry = Registry::Global();
  const google::protobuf::Message& config = *GetParam().type->prototype;
  if (GetParam().type->kind != PluginKind::kQuantizer) {
    EXPECT_FALSE(registry.Make<Quantizer>(config, context).ok());
  } else {
    EXPECT_FALSE(registry.Make<Objective>(config, context).ok());
  }
}

TEST_P(PluginConformance, ProvidesWhatItsContractSays) {
  auto trainer =
      neutral_->MakeTrainer(neutral_->experiment(), FreshFolder("run"));
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  Model& model = (*trainer)->model();
  auto batches = neutral_->Batches(1);
  ASSERT_TRUE(batches.ok()) << batches.status();
  auto book = BuildContracts(neutral_->experiment());
  ASSERT_TRUE(book.ok()) << book.status();
  for (const std::string& instance : neutral_->instances()) {
    const Contract* contract = book->Find(instance);
    if (contract == nullptr) {  // Streams are no instances of the model.
      EXPECT_EQ(GetParam().type->kind, PluginKind::kDataSource);
      continue;
    }
    for (const ProvidedView& provided : contract->provides) {
      SCOPED_TRACE(absl::StrCat(instance, "/", provided.view));
      const int slot =
          GetParam().type->kind == PluginKind::kFusionEncoder ? kAllSlots : 0;
      const ViewKey key{instance, provided.view, Variant{}, slot, ""};
      Forward forward((*batches)[0], model.providers(), &model.providers(),
                      {true, 1, 0});
      const std::any value =
          model.providers().at(instance)->ComputeView(key, forward);
      ASSERT_TRUE(value.has_value());
      at::Tensor last;
      if (const auto* t = std::any_cast<at::Tensor>(&value)) last = *t;
      if (const auto* t = std::any_cast<Tokens>(&value)) last = t->values;
      if (const auto* q = std::any_cast<QuantizedTokens>(&value))
        last = q->quantized.vectors;
      if (provided.dim > 0) {
        ASSERT_TRUE(last.defined())
            << "a view with a dimension must be a tensor, Tokens or quantised";
        EXPECT_EQ(last.size(-1), provided.dim);
      }
    }
  }
}

TEST_P(PluginConformance, AsksForNothingButWhatContractsProvide) {
  auto trainer =
      neutral_->MakeTrainer(neutral_->experiment(), FreshFolder("run"));
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  Model& model = (*trainer)->model();
  auto batches = neutral_->Batches(1);
  ASSERT_TRUE(batches.ok()) << batches.status();
  auto book = BuildContracts(neutral_->experiment());
  ASSERT_TRUE(book.ok()) << book.status();
  Forward forward((*batches)[0], model.providers(), &model.providers(),
                  {true, 1, 0});
  ComputeLosses(model, forward);
  for (const ViewKey& key : forward.computed()) {
    const Contract* contract = book->Find(key.instance);
    ASSERT_NE(contract, nullptr) << ToString(key);
    EXPECT_NE(contract->Find(key.view), nullptr) << ToString(key);
  }
}

TEST_P(PluginConformance, EveryParameterGetsAGradient) {
  auto batches = neutral_->Batches(2);
  ASSERT_TRUE(batches.ok()) << batches.status();
  auto trainer = Train(FreshFolder("run"), *batches);
  ASSERT_NE(trainer, nullptr);
  double norm = 0;
  int64_t learning = 0;
  for (const auto& [name, parameter] : Parameters(trainer->model())) {
    if (!parameter.requires_grad()) continue;
    ++learning;
    ASSERT_TRUE(parameter.grad().defined()) << name << " gets no gradient";
    EXPECT_TRUE(parameter.grad().isfinite().all().item<bool>()) << name;
    norm += parameter.grad().norm().item<double>();
  }
  if (learning > 0) {
    EXPECT_GT(norm, 0);
  }
}

TEST_P(PluginConformance, LearnsTheSameFromTheSameSeed) {
  auto batches = neutral_->Batches(3);
  ASSERT_TRUE(batches.ok()) << batches.status();
  auto a = Train(FreshFolder("a"), {});
  // Whatever others draw from the default generator between.
  auto b = Train(FreshFolder("b"), {});
  ASSERT_TRUE(a != nullptr && b != nullptr);
  const auto left = Advance(*a, *batches);
  at::manual_seed(12345);
  ExpectSameValues(left, Advance(*b, *batches));
  ExpectSameState(a->model(), b->model());

  neutral_->experiment().set_seed(99);
  auto c = Train(FreshFolder("c"), *batches);
  ASSERT_NE(c, nullptr);
  bool differs = false;
  for (const auto& [name, value] : State(a->model())) {
    differs |= !at::equal(value, State(c->model()).at(name));
  }
  EXPECT_TRUE(differs) << "the seed decides nothing";
}

TEST_P(PluginConformance, GoesOnFromItsSavedStateBitByBit) {
  auto batches = neutral_->Batches(4);
  ASSERT_TRUE(batches.ok()) << batches.status();
  const std::vector<Batch> first(batches->begin(), batches->begin() + 2);
  const std::vector<Batch> rest(batches->begin() + 2, batches->end());
  const std::string folder = FreshFolder("run");
  auto undisturbed = Train(folder, first);
  ASSERT_NE(undisturbed, nullptr);
  const absl::Status saved = undisturbed->Save();
  ASSERT_TRUE(saved.ok()) << saved;
  const auto expected = Advance(*undisturbed, rest);

  auto resumed = Train(folder, {});
  ASSERT_NE(resumed, nullptr);
  auto found = resumed->Resume();
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_TRUE(*found);
  EXPECT_EQ(resumed->step(), 2);
  ExpectSameValues(expected, Advance(*resumed, rest));
  ExpectSameState(undisturbed->model(), resumed->model());
}

TEST_P(PluginConformance, MovesToDoubleAndBack) {
  auto batches = neutral_->Batches(2);
  ASSERT_TRUE(batches.ok()) << batches.status();
  auto trainer = Train(FreshFolder("run"), {(*batches)[0]});
  ASSERT_NE(trainer, nullptr);
  Model& model = trainer->model();
  model.to(at::kDouble);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    model.to(type);
    const Batch batch = (*batches)[1].To(at::kCPU, type);
    Forward forward(batch, model.providers(), &model.providers(), {true, 1, 1});
    const Losses losses = ComputeLosses(model, forward);
    ASSERT_TRUE(losses.total.defined());
    EXPECT_TRUE(losses.total.isfinite().item<bool>());
    for (const auto& [name, value] : losses.named) {
      for (const std::string& instance : neutral_->instances()) {
        if (type == at::kDouble &&
            absl::StartsWith(name, absl::StrCat(instance, "/"))) {
          EXPECT_EQ(value.scalar_type(), at::kDouble)
              << name << " loses precision on the way";
        }
      }
    }
    losses.total.backward();
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, PluginConformance, testing::ValuesIn(ConformanceCases()),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

}  // namespace
}  // namespace semvq
