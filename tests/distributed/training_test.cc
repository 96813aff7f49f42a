// Two ranks with B images each train as one with 2 B does: the quickstart's
// composition with every quantizer, and every encoder, objective and fine-tuned
// task.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/config/merge.h"
#include "core/distributed/testing.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"
#include "tests/conformance/neutral.h"
#include "trainer/trainer.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;

constexpr int kBatch = 6;  // Of a rank.
constexpr int64_t kSteps = 20;
constexpr double kTolerance = 1e-5;

// What the quickstart trains beside the neutral composition's objectives.
constexpr char kQuickstart[] = R"(
  objectives { name: "itm" config { [type.googleapis.com/semvq.ItmConfig] {} } }
  objectives {
    name: "reconstruction"
    config {
      [type.googleapis.com/semvq.ReconstructionConfig] {
        patch_size: 8 dim: 16 depth: 1 heads: 2
      }
    }
  }
)";

// No dropout, whose draws are a rank's own, nor batch norms, which are of its
// images; and what is drawn from the batch is drawn from that of all ranks. In
// a plugin's config and those nested in it.
void MakeComparable(pb::Message& config) {
  const pb::Reflection* r = config.GetReflection();
  const pb::Descriptor* d = config.GetDescriptor();
  for (int i = 0; i < d->field_count(); ++i) {
    const pb::FieldDescriptor* field = d->field(i);
    if (field->is_repeated()) continue;
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_DOUBLE &&
        absl::StrContains(field->name(), "drop")) {
      r->SetDouble(&config, field, 0);
    } else if (field->name() == "frozen_batch_norm") {
      r->SetBool(&config, field, true);
    } else if (field->name() == "negatives" && field->enum_type() != nullptr) {
      r->SetEnum(&config, field, field->enum_type()->FindValueByName("GLOBAL"));
    } else if (field->message_type() == pb::Any::descriptor() &&
               r->HasField(config, field)) {
      auto& any = static_cast<pb::Any&>(*r->MutableMessage(&config, field));
      auto inner = UnpackConfig(any);
      ASSERT_TRUE(inner.ok()) << inner.status();
      MakeComparable(**inner);
      any.PackFrom(**inner);
    } else if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE &&
               r->HasField(config, field)) {  // A decoder with its dropout.
      MakeComparable(*r->MutableMessage(&config, field));
    }
  }
}

void MakeComparable(Experiment& e) {
  const auto each = [](auto& list) {
    for (auto& entry : list) MakeComparable(entry);
  };
  each(*e.mutable_encoders());
  each(*e.mutable_quantizers());
  each(*e.mutable_objectives());
  each(*e.mutable_tasks());
  e.mutable_optimizer()->set_clip_norm(1.0);
  e.mutable_trainer()->set_batch_size(kBatch);
  e.mutable_checkpoint()->set_keep(10);
}

std::map<std::string, double> ValuesOf(const NamedTensors& values) {
  std::map<std::string, double> out;
  for (const auto& [name, value] : values)
    out.emplace(name, value.to(at::kDouble).item<double>());
  return out;
}

using State = std::map<std::string, at::Tensor>;

State StateOf(const torch::nn::Module& model) {
  State state;
  for (const auto& p : model.named_parameters())
    state[p.key()] = p.value().detach().clone();
  for (const auto& b : model.named_buffers())
    state[b.key()] = b.value().detach().clone();
  return state;
}

void ExpectNear(const State& actual, const State& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, value] : expected) {
    const at::Tensor& other = actual.at(name);
    ASSERT_EQ(other.sizes(), value.sizes()) << name;
    if (value.numel() == 0) continue;
    const double largest = value.abs().max().to(at::kDouble).item<double>();
    const double difference =
        (other - value).abs().max().to(at::kDouble).item<double>();
    EXPECT_LE(difference, kTolerance * (1 + largest)) << name;
  }
}

void ExpectEqual(const State& a, const State& b) {
  for (const auto& [name, value] : a)
    EXPECT_TRUE(at::equal(value, b.at(name))) << name;
}

// What one rank, or the only one, did.
struct Record {
  std::vector<std::map<std::string, double>> steps;  // Values of each step.
  State state;                                       // At the end.
};

// One experiment, run by one rank or by two.
class Runs {
 public:
  // `extra`: an overlay of names that are not in the composition yet.
  explicit Runs(const ConformanceCase& c, const std::string& extra = "") {
    for (int rank = 0; rank < 2; ++rank) {
      auto neutral = Neutral::Create(c);
      EXPECT_TRUE(neutral.ok()) << neutral.status();
      if (!neutral.ok()) return;
      Experiment& e = (*neutral)->experiment();
      Experiment more;
      EXPECT_TRUE(pb::TextFormat::ParseFromString(extra, &more));
      for (const ObjectiveConfig& objective : more.objectives()) {
        bool known = false;
        for (const ObjectiveConfig& other : e.objectives())
          known = known || other.name() == objective.name();
        if (!known) *e.add_objectives() = objective;
      }
      MakeComparable(e);
      const absl::Status valid = (*neutral)->Validate(e);
      EXPECT_TRUE(valid.ok()) << valid;
      neutrals_.push_back(*std::move(neutral));
    }
  }

  bool ok() const { return neutrals_.size() == 2; }
  Experiment& experiment() { return neutrals_[0]->experiment(); }

  // Composed one at a time: parameters come from the default generator.
  std::unique_ptr<Trainer> Make(Communicator* group, const std::string& folder,
                                bool random_data = true) {
    std::lock_guard<std::mutex> lock(mutex_);
    Neutral& neutral = *neutrals_[group == nullptr ? 0 : group->rank()];
    auto setup = neutral.Setup(experiment(), folder);
    EXPECT_TRUE(setup.ok()) << setup.status();
    setup->group = group;
    setup->dtype = at::kDouble;
    setup->random_data = random_data;
    setup->config_hash = "one";  // Whatever the batch size.
    auto trainer = Trainer::Create(*std::move(setup));
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    return trainer.ok() ? *std::move(trainer) : nullptr;
  }

  // Batches of 2 B for one rank, of B for each of two.
  std::vector<Batch> Batches(int64_t count, int64_t rank, int64_t ranks) {
    Neutral& neutral = *neutrals_[rank];
    neutral.experiment().mutable_trainer()->set_batch_size(
        ranks == 1 ? 2 * kBatch : kBatch);
    auto batches = neutral.Batches(count, rank, ranks);
    neutral.experiment().mutable_trainer()->set_batch_size(kBatch);
    EXPECT_TRUE(batches.ok()) << batches.status();
    return batches.ok() ? *std::move(batches) : std::vector<Batch>();
  }

 private:
  std::vector<std::unique_ptr<Neutral>> neutrals_;
  std::mutex mutex_;
};

Record Train(Trainer& trainer, const std::vector<Batch>& batches,
             int64_t micro_steps = 1) {
  Record record;
  for (auto batch = batches.begin(); batch != batches.end();
       batch += micro_steps) {
    const auto report =
        trainer.Step(std::vector<Batch>(batch, batch + micro_steps));
    EXPECT_TRUE(report.ok()) << report.status();
    if (!report.ok()) break;
    EXPECT_EQ(report->nonfinite, "");
    record.steps.push_back(ValuesOf(report->values));
  }
  record.state = StateOf(trainer.model());
  return record;
}

// Trains both ways and compares.
void Compare(Runs& runs, int64_t steps, int64_t micro_steps = 1) {
  ASSERT_TRUE(runs.ok());
  const std::unique_ptr<Trainer> single = runs.Make(nullptr, "");
  ASSERT_NE(single, nullptr);
  const State start = StateOf(single->model());
  const int64_t batches = steps * micro_steps;
  const Record expected =
      Train(*single, runs.Batches(batches, 0, 1), micro_steps);
  ASSERT_EQ(static_cast<int64_t>(expected.steps.size()), steps);
  const std::vector<Batch> parts[] = {runs.Batches(batches, 0, 2),
                                      runs.Batches(batches, 1, 2)};
  std::vector<Record> ranks(2);
  RunRanks(2, [&](Communicator& group) {
    const auto trainer = runs.Make(&group, "");
    ASSERT_NE(trainer, nullptr);
    // Only rank 0's start counts.
    if (group.rank() == 1) {
      c10::NoGradGuard no_grad;
      for (at::Tensor p : trainer->model().parameters()) p.zero_();
    }
    ranks[group.rank()] = Train(*trainer, parts[group.rank()], micro_steps);
  });
  for (int64_t step = 0; step < steps; ++step) {
    for (const char* name : {"loss", "gradient_norm"}) {
      const double value = expected.steps[step].at(name);
      EXPECT_NEAR((ranks[0].steps.at(step).at(name) +
                   ranks[1].steps.at(step).at(name)) /
                      2,
                  value, kTolerance * (1 + std::abs(value)))
          << name << " of step " << step;
    }
  }
  ExpectEqual(ranks[0].state, ranks[1].state);
  ExpectNear(ranks[0].state, expected.state);
  // That there was something to compare.
  int64_t moved = 0;
  for (const auto& [name, value] : start)
    moved += !at::equal(value, expected.state.at(name));
  EXPECT_GT(moved, 0);
}

class RanksTraining : public testing::TestWithParam<ConformanceCase> {};

TEST_P(RanksTraining, TwoRanksAreOneWithTwiceTheBatch) {
  Runs runs(GetParam(),
            GetParam().type->kind == PluginKind::kQuantizer ? kQuickstart : "");
  Compare(runs, kSteps);
}

std::vector<ConformanceCase> Trained() {
  std::vector<ConformanceCase> cases;
  for (const ConformanceCase& c : ConformanceCases()) {
    if (c.type->kind != PluginKind::kDataSource) cases.push_back(c);
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(
    All, RanksTraining, testing::ValuesIn(Trained()),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

// The quickstart's quantizer, in its composition.
ConformanceCase QuickstartCase() {
  for (const ConformanceCase& c : ConformanceCases(PluginKind::kQuantizer)) {
    if (c.type->config->name() == "VqEmaConfig") return c;
  }
  ADD_FAILURE() << "no vq_ema";
  return {};
}

TEST(RanksTrainingTest, SeveralMicroSteps) {
  Runs runs(QuickstartCase(), kQuickstart);
  Compare(runs, kSteps, /*micro_steps=*/2);
}

TEST(RanksTrainingTest, ZeroIsPlain) {
  Runs runs(QuickstartCase(), kQuickstart);
  ASSERT_TRUE(runs.ok());
  runs.experiment().mutable_optimizer()->set_zero(true);
  Compare(runs, kSteps);
}

TEST(RanksTrainingTest, GradientsAsBfloat16AreNear) {
  Runs runs(QuickstartCase(), kQuickstart);
  ASSERT_TRUE(runs.ok());
  const std::vector<Batch> parts[] = {runs.Batches(5, 0, 2),
                                      runs.Batches(5, 1, 2)};
  std::vector<State> states;  // Of the parameters.
  for (const bool bf16 : {false, true}) {
    runs.experiment().mutable_trainer()->set_bf16_gradients(bf16);
    RunRanks(2, [&](Communicator& group) {
      const auto trainer = runs.Make(&group, "");
      ASSERT_NE(trainer, nullptr);
      Train(*trainer, parts[group.rank()]);
      if (group.rank() != 0) return;
      State state;
      for (const auto& p : trainer->model().named_parameters())
        state[p.key()] = p.value().detach().clone();
      states.push_back(std::move(state));
    });
  }
  double difference = 0;
  for (const auto& [name, value] : states[0]) {
    if (value.numel() == 0) continue;
    difference = std::max(
        difference, (value - states[1].at(name)).abs().max().item<double>());
  }
  // Adam's steps of 1e-3 forgive the rounding of gradients to 3 digits, but
  // not altogether.
  EXPECT_GT(difference, 1e-8);
  EXPECT_LT(difference, 1e-2);
}

// A value that is not finite on one rank is skipped by both.
TEST(RanksTrainingTest, RanksSkipAStepTogether) {
  Runs runs(QuickstartCase(), kQuickstart);
  ASSERT_TRUE(runs.ok());
  std::vector<Batch> parts[] = {runs.Batches(3, 0, 2), runs.Batches(3, 1, 2)};
  parts[1][1].images = parts[1][1].images.clone();
  parts[1][1].images.fill_(std::numeric_limits<float>::quiet_NaN());
  RunRanks(2, [&](Communicator& group) {
    const auto trainer = runs.Make(&group, "");
    ASSERT_NE(trainer, nullptr);
    for (int64_t step = 0; step < 3; ++step) {
      std::vector<at::Tensor> before;
      for (const at::Tensor& p : trainer->model().parameters())
        before.push_back(p.detach().clone());
      const auto report = trainer->Step({parts[group.rank()][step]});
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_EQ(report->nonfinite.empty(), step != 1);
      bool same = true;
      for (size_t i = 0; i < before.size(); ++i)
        same = same && at::equal(before[i], trainer->model().parameters()[i]);
      EXPECT_EQ(same, step == 1);
    }
  });
}

// Two ranks, then one, then two, from checkpoints alone, with the state of the
// optimizer cut among the ranks: what one rank does with as many samples a
// step.
TEST(RanksTrainingTest, GoesOnWithAnotherNumberOfRanks) {
  Runs runs(QuickstartCase(), kQuickstart);
  ASSERT_TRUE(runs.ok());
  Experiment& e = runs.experiment();
  e.mutable_optimizer()->set_zero(true);
  e.mutable_logging()->set_every(3);
  // The rate must not depend on where a run is to end.
  e.mutable_schedule()->set_min_lr(e.optimizer().lr());
  // Until `steps`, by so many ranks.
  const auto run = [&](const std::string& folder, int64_t ranks,
                       int64_t steps) {
    e.mutable_trainer()->set_steps(steps);
    e.mutable_trainer()->set_batch_size(static_cast<int>(2 * kBatch / ranks));
    State state;
    const auto train = [&](Communicator* group) {
      const auto trainer = runs.Make(group, folder, /*random_data=*/false);
      ASSERT_NE(trainer, nullptr);
      const auto resumed = trainer->Resume();
      ASSERT_TRUE(resumed.ok()) << resumed.status();
      const absl::Status status = trainer->Train();
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(trainer->step(), steps);
      if (group == nullptr || group->rank() == 0)
        state = StateOf(trainer->model());
    };
    if (ranks == 1) {
      train(nullptr);
    } else {
      RunRanks(ranks, [&](Communicator& group) { train(&group); });
    }
    return state;
  };
  const std::string folder = FreshFolder("ranks");
  run(folder, 2, 4);
  run(folder, 1, 9);
  const State state = run(folder, 2, 14);
  ExpectNear(state, run(FreshFolder("one"), 1, 14));
  // Rank 0 alone writes what all have found.
  const absl::StatusOr<std::string> log =
      ReadFile(JoinPath(folder, "metrics.jsonl"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(std::count(log->begin(), log->end(), '\n'), 6);
}

}  // namespace
}  // namespace semvq
