// What encoders, tasks and data sources owe beside what every plugin owes.

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/config/validate.h"
#include "core/forward/forward.h"
#include "core/util/file.h"
#include "data/source.h"
#include "tests/conformance/neutral.h"
#include "trainer/losses.h"

namespace semvq {
namespace {

std::string CaseName(const testing::TestParamInfo<ConformanceCase>& info) {
  return info.param.Name();
}

std::vector<ConformanceCase> EncoderCases() {
  std::vector<ConformanceCase> cases;
  for (PluginKind kind : {PluginKind::kImageEncoder, PluginKind::kTextEncoder,
                          PluginKind::kFusionEncoder}) {
    for (const ConformanceCase& c : ConformanceCases(kind)) cases.push_back(c);
  }
  return cases;
}

// In evaluation mode and float64, so that equal work gives equal numbers.
class EncoderConformance : public testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    auto neutral = Neutral::Create(GetParam());
    ASSERT_TRUE(neutral.ok()) << neutral.status();
    neutral_ = *std::move(neutral);
    auto trainer =
        neutral_->MakeTrainer(neutral_->experiment(), FreshFolder("run"));
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    trainer_ = *std::move(trainer);
    auto batches = neutral_->Batches(1);
    ASSERT_TRUE(batches.ok()) << batches.status();
    batch_ = (*batches)[0].To(at::kCPU, at::kDouble);
    model().to(at::kDouble);
    model().eval();
    kind_ = GetParam().type->kind;
    instance_ = neutral_->instances()[0];
    auto book = BuildContracts(neutral_->experiment());
    ASSERT_TRUE(book.ok()) << book.status();
    dim_ = book->Dim(instance_,
                     kind_ == PluginKind::kFusionEncoder ? kFused : kTokens);
  }

  Model& model() { return trainer_->model(); }

  ViewKey Key() const {
    if (kind_ == PluginKind::kFusionEncoder) return FusedKey(instance_, kFused);
    return kind_ == PluginKind::kImageEncoder ? ImageKey(instance_, kTokens)
                                              : TextKey(instance_, kTokens);
  }

  Tokens Encode(const Batch& batch) {
    Forward forward(batch, model().providers(), nullptr, {false, 1, 0});
    return forward.Get<Tokens>(Key());
  }

  // Rows `index` of a batch with one text an image.
  static Batch OneTextEach(Batch batch, const std::vector<int64_t>& rows) {
    const at::Tensor index = torch::tensor(rows, at::kLong);
    Batch out = batch;
    std::vector<int64_t> texts;
    for (int64_t row : rows) {
      texts.push_back(
          batch.text_to_image.eq(row).nonzero()[0][0].item<int64_t>());
    }
    const at::Tensor text_index = torch::tensor(texts, at::kLong);
    out.images = batch.images.index_select(0, index);
    out.text_ids = batch.text_ids.index_select(0, text_index);
    out.text_mask = batch.text_mask.index_select(0, text_index);
    out.text_to_image = at::arange(index.size(0));
    out.image_ids.clear();
    out.sample_numbers.clear();
    out.texts.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      out.image_ids.push_back(batch.image_ids[rows[i]]);
      out.sample_numbers.push_back(batch.sample_numbers[rows[i]]);
      out.texts.push_back(batch.texts[texts[i]]);
    }
    return out;
  }

  std::unique_ptr<Neutral> neutral_;
  std::unique_ptr<Trainer> trainer_;
  Batch batch_;
  PluginKind kind_ = PluginKind::kImageEncoder;
  std::string instance_;
  int64_t dim_ = 0;
};

TEST_P(EncoderConformance, ShapesAreThoseOfTheContract) {
  const Tokens tokens = Encode(batch_);
  ASSERT_EQ(tokens.values.dim(), 3);
  EXPECT_GT(dim_, 0);
  EXPECT_EQ(tokens.values.size(2), dim_);
  EXPECT_EQ(tokens.values.scalar_type(), at::kDouble);
  if (tokens.mask.defined()) {
    EXPECT_EQ(tokens.mask.scalar_type(), at::kBool);
    EXPECT_EQ(tokens.mask.sizes(), tokens.values.sizes().slice(0, 2));
  }
  if (kind_ == PluginKind::kImageEncoder) {
    EXPECT_EQ(tokens.values.size(0), batch_.num_images());
    EXPECT_GT(tokens.grid.height, 0);
    EXPECT_EQ(tokens.values.size(1), tokens.grid.height * tokens.grid.width +
                                         (tokens.has_cls ? 1 : 0));
  } else {
    EXPECT_EQ(tokens.values.size(0), batch_.num_texts());
    EXPECT_EQ(tokens.values.size(1), batch_.text_ids.size(1));
    EXPECT_EQ(tokens.grid.height, 0);
  }
}

// As a target for others: parameters, buffers and outputs stay.
TEST_P(EncoderConformance, FrozenItStaysAsItIs) {
  Experiment experiment = neutral_->experiment();
  for (EncoderConfig& encoder : *experiment.mutable_encoders())
    if (encoder.name() == instance_) encoder.set_frozen(true);
  auto trainer = neutral_->MakeTrainer(experiment, FreshFolder("frozen"));
  ASSERT_TRUE(trainer.ok()) << trainer.status();
  Model& frozen = (*trainer)->model();
  const auto module = frozen.named_children()[instance_];
  std::vector<at::Tensor> before;
  for (const at::Tensor& p : module->parameters()) before.push_back(p.clone());
  for (const at::Tensor& b : module->buffers()) before.push_back(b.clone());
  auto batches = neutral_->Batches(2);
  ASSERT_TRUE(batches.ok()) << batches.status();
  for (const Batch& batch : *batches) {
    auto report = (*trainer)->Step({batch});
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->nonfinite, "");
  }
  EXPECT_TRUE(frozen.is_training());
  EXPECT_FALSE(module->is_training()) << "dropout is on";
  std::vector<at::Tensor> after = module->parameters();
  for (const at::Tensor& p : after) EXPECT_FALSE(p.requires_grad());
  for (const at::Tensor& b : module->buffers()) after.push_back(b);
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < after.size(); ++i)
    EXPECT_TRUE(at::equal(before[i], after[i]));
}

TEST_P(EncoderConformance, ARowDoesNotDependOnTheOthers) {
  const Tokens together = Encode(OneTextEach(batch_, {0, 1, 2}));
  const Tokens alone = Encode(OneTextEach(batch_, {1}));
  EXPECT_TRUE(at::allclose(together.values[1], alone.values[0], 1e-9, 1e-9));
  const Tokens turned = Encode(OneTextEach(batch_, {2, 1, 0}));
  EXPECT_TRUE(at::allclose(together.values.flip(0), turned.values, 1e-9, 1e-9));
  EXPECT_FALSE(at::allclose(together.values, turned.values, 1e-4, 1e-4))
      << "the input decides nothing";
}

TEST_P(EncoderConformance, ReadsItsInputAndNoPadding) {
  const Tokens before = Encode(batch_);
  Batch changed = batch_;
  if (kind_ == PluginKind::kImageEncoder) {
    changed.images = batch_.images + 0.5 * at::randn_like(batch_.images);
    EXPECT_FALSE(
        at::allclose(before.values, Encode(changed).values, 1e-4, 1e-4));
    return;
  }
  ASSERT_FALSE(batch_.text_mask.all().item<bool>()) << "no text is padded";
  changed.text_ids = at::where(batch_.text_mask, batch_.text_ids,
                               at::full_like(batch_.text_ids, 7));
  const Tokens after = Encode(changed);
  const at::Tensor real = batch_.text_mask.unsqueeze(-1);
  EXPECT_TRUE(
      at::allclose(before.values * real, after.values * real, 1e-9, 1e-9))
      << "padding is read";
  changed.text_ids = at::where(batch_.text_ids.gt(4),
                               batch_.text_ids.roll(1, 0), batch_.text_ids);
  EXPECT_FALSE(at::allclose(before.values * real, Encode(changed).values * real,
                            1e-4, 1e-4));
}

TEST_P(EncoderConformance, HidesWhatIsMasked) {
  if (kind_ == PluginKind::kFusionEncoder) {
    // It pairs what it is told to pair.
    Forward forward(batch_, model().providers(), nullptr, {false, 1, 0});
    Pairing pairing{torch::tensor({0, 0, 1}, at::kLong),
                    torch::tensor({0, 1, 0}, at::kLong)};
    forward.Set({"pairs", kPairing, Variant{}, 0, ""}, pairing);
    const auto& fused =
        forward.Get<Tokens>(FusedKey(instance_, kFused, Variant{}, "pairs"));
    const Tokens& own = forward.Get<Tokens>(Key());
    EXPECT_EQ(fused.values.size(0), 3);
    EXPECT_TRUE(at::allclose(fused.values[0], own.values[0], 1e-9, 1e-9));
    EXPECT_FALSE(at::allclose(fused.values[1], own.values[0], 1e-5, 1e-5))
        << "the image decides nothing";
    return;
  }
  if (kind_ == PluginKind::kTextEncoder) return;  // Masks are ids there.
  const Tokens clean = Encode(batch_);
  const int64_t patches = clean.grid.height * clean.grid.width;
  Variant masked;
  masked.image_mask = "hidden";
  ImageMask mask;
  mask.mask = at::zeros({batch_.num_images(), patches}, at::kBool);
  mask.mask.select(1, 0).fill_(true);
  const auto encode = [&](const Batch& batch) {
    Forward forward(batch, model().providers(), nullptr, {false, 1, 0});
    forward.Set(ImageKey("hidden", kImageMask), mask);
    return forward.Get<Tokens>(ImageKey(instance_, kTokens, masked)).values;
  };
  const at::Tensor hidden = encode(batch_);
  EXPECT_EQ(hidden.sizes(), clean.values.sizes());
  // The pixels of the hidden patch (the first) cannot be seen in any token.
  Batch changed = batch_;
  changed.images = batch_.images.clone();
  const int64_t height = batch_.images.size(3) / clean.grid.height;
  const int64_t width = batch_.images.size(4) / clean.grid.width;
  changed.images.narrow(3, 0, height).narrow(4, 0, width).fill_(3.0);
  EXPECT_FALSE(at::allclose(clean.values, Encode(changed).values, 1e-6, 1e-6));
  EXPECT_TRUE(at::allclose(hidden, encode(changed), 1e-9, 1e-9));
}

INSTANTIATE_TEST_SUITE_P(All, EncoderConformance,
                         testing::ValuesIn(EncoderCases()), CaseName);

class TaskConformance : public testing::TestWithParam<ConformanceCase> {
 protected:
  void SetUp() override {
    auto neutral = Neutral::Create(GetParam());
    ASSERT_TRUE(neutral.ok()) << neutral.status();
    neutral_ = *std::move(neutral);
  }

  StageResult Evaluate(const std::string& folder, int batch_size) {
    Experiment experiment = neutral_->experiment();
    for (auto& task : *experiment.mutable_tasks())
      task.set_batch_size(batch_size);
    auto trainer = neutral_->MakeTrainer(experiment, folder);
    EXPECT_TRUE(trainer.ok()) << trainer.status();
    if (!trainer.ok()) return {};
    // A codebook starts with the first training batch.
    auto batches = neutral_->Batches(1);
    EXPECT_TRUE(batches.ok()) << batches.status();
    auto step = (*trainer)->Step(*batches);
    EXPECT_TRUE(step.ok()) << step.status();
    auto result = (*trainer)->Evaluate();
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : StageResult();
  }

  std::unique_ptr<Neutral> neutral_;
};

TEST_P(TaskConformance, ReportsFiniteMetricsAndItsFiles) {
  const std::string folder = FreshFolder("run");
  const StageResult result = Evaluate(folder, 8);
  ASSERT_EQ(result.tasks_size(), neutral_->experiment().tasks_size());
  for (const TaskSummary& task : result.tasks()) {
    EXPECT_GT(task.metrics_size(), 0) << task.name();
    bool headline = false;
    for (const Metric& metric : task.metrics()) {
      EXPECT_FALSE(metric.name().empty());
      EXPECT_TRUE(std::isfinite(metric.value())) << metric.name();
      headline |= metric.headline();
    }
    EXPECT_TRUE(headline) << task.name() << " shows nothing in the table";
    for (const std::string& file : task.files()) {
      auto size = FileSize(JoinPath(folder, file));
      ASSERT_TRUE(size.ok()) << size.status();
      EXPECT_GT(*size, 0) << file;
    }
  }
}

TEST_P(TaskConformance, DoesNotDependOnTheBatchSizeAndRepeats) {
  const StageResult a = Evaluate(FreshFolder("a"), 8);
  const StageResult b = Evaluate(FreshFolder("b"), 5);
  ASSERT_EQ(a.tasks_size(), b.tasks_size());
  for (int t = 0; t < a.tasks_size(); ++t) {
    ASSERT_EQ(a.tasks(t).metrics_size(), b.tasks(t).metrics_size());
    for (int m = 0; m < a.tasks(t).metrics_size(); ++m) {
      const Metric &left = a.tasks(t).metrics(m),
                   &right = b.tasks(t).metrics(m);
      EXPECT_EQ(left.name(), right.name());
      EXPECT_NEAR(left.value(), right.value(), 1e-3) << left.name();
      EXPECT_NEAR(left.chance(), right.chance(), 1e-3) << left.name();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TaskConformance,
                         testing::ValuesIn(ConformanceCases(PluginKind::kTask)),
                         CaseName);

class DataSourceConformance : public testing::TestWithParam<ConformanceCase> {};

TEST_P(DataSourceConformance, ReadsTheSameFromAnyThreadInAnyOrder) {
  auto neutral = Neutral::Create(GetParam());
  ASSERT_TRUE(neutral.ok()) << neutral.status();
  for (const std::string& name : (*neutral)->instances()) {
    auto source = (*neutral)->streams().Open((*neutral)->experiment(), name);
    ASSERT_TRUE(source.ok()) << source.status();
    const int64_t size = (*source)->size();
    ASSERT_GT(size, 0);
    const auto text = [&](int64_t i) {
      absl::StatusOr<Sample> sample = (*source)->Read(i);
      if (!sample.ok()) return sample.status().ToString();
      EXPECT_FALSE(sample->image_paths.empty());
      EXPECT_FALSE(sample->texts.empty());
      EXPECT_FALSE(sample->where.empty());
      std::string all = absl::StrCat(sample->image_id, "|", sample->where);
      for (const auto& t : sample->texts) absl::StrAppend(&all, "|", t.text);
      for (const auto& p : sample->image_paths) {
        EXPECT_TRUE(PathExists(p)) << p;
        absl::StrAppend(&all, "|", p);
      }
      return all;
    };
    std::vector<std::string> expected;
    for (int64_t i = 0; i < size; ++i) expected.push_back(text(i));
    std::vector<std::vector<std::string>> seen(4);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int64_t i = size - 1; i >= 0; --i) seen[t].push_back(text(i));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& list : seen) {
      EXPECT_TRUE(std::equal(list.rbegin(), list.rend(), expected.begin(),
                             expected.end()));
    }
  }
}

TEST_P(DataSourceConformance, NamesTheFilesItWants) {
  auto neutral = Neutral::Create(GetParam());
  ASSERT_TRUE(neutral.ok()) << neutral.status();
  Experiment copy = (*neutral)->experiment();
  (*neutral)->ForEachConfig(copy, [](google::protobuf::Message& config) {
    const Contract contract =
        GetParam().type->contract("x", config, ContractBook());
    EXPECT_FALSE(contract.files.empty())
        << "a run must find out before it starts what is missing";
    for (const NeededFile& file : contract.files) {
      EXPECT_FALSE(file.field.empty());
      EXPECT_FALSE(file.format.empty());
      EXPECT_TRUE(PathExists(file.path)) << file.path;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, DataSourceConformance,
    testing::ValuesIn(ConformanceCases(PluginKind::kDataSource)), CaseName);

}  // namespace
}  // namespace semvq
