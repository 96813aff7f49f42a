// Every file in configs/ is read, checked and run for two tiny steps a stage.

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/config/load.h"
#include "core/config/merge.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/util/file.h"
#include "tests/e2e/shrink.h"
#include "tests/shapes.h"
#include "trainer/run.h"

namespace semvq {
namespace {

std::string ConfigFolder() {
  return absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                      std::getenv("TEST_WORKSPACE"), "/configs");
}

// Files under configs/, "ablations/quantizers/x.pbtxt".
void List(const std::string& folder, std::vector<std::string>& files) {
  auto names = ListDirectory(JoinPath(ConfigFolder(), folder));
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    const std::string path = folder.empty() ? name : JoinPath(folder, name);
    if (IsDirectory(JoinPath(ConfigFolder(), path))) List(path, files);
    if (absl::EndsWith(name, ".pbtxt")) files.push_back(path);
  }
}

std::vector<std::string> AllConfigs() {
  std::vector<std::string> files;
  List("", files);
  return files;
}

bool IsExperiment(const std::string& file) {
  return !absl::StrContains(file, "/");
}

class Configs : public testing::TestWithParam<std::string> {
 protected:
  static LoadResult Load(const std::vector<std::string>& files) {
    std::vector<SourceText> sources;
    for (const std::string& file : files) {
      auto source = ReadSource(JoinPath(ConfigFolder(), file), file);
      EXPECT_TRUE(source.ok()) << source.status();
      if (source.ok()) sources.push_back(*std::move(source));
    }
    return LoadExperiment(sources);
  }
};

TEST_P(Configs, IsValidAndRunsTwoSteps) {
  const std::string shapes = JoinPath(testing::TempDir(), "config_shapes");
  ASSERT_TRUE(WriteShapes(shapes).ok());
  // Paths are replaced, but the variables in them must be known.
  setenv("SEMVQ_DATA", shapes.c_str(), 1);

  // Files directly in configs/ are experiments; those in its folders are
  // overlays, on every experiment that they fit.
  std::vector<std::vector<std::string>> fits;
  std::string reports;
  for (const std::string& file : AllConfigs()) {
    if (!IsExperiment(file)) continue;
    if (IsExperiment(GetParam()) && file != GetParam()) continue;
    std::vector<std::string> files = {file};
    if (!IsExperiment(GetParam())) files.push_back(GetParam());
    const std::vector<ConfigError> errors = CheckExperiment(Load(files));
    if (errors.empty()) {
      fits.push_back(files);
    } else {
      absl::StrAppend(&reports, FormatReport(errors), "\n");
    }
  }
  ASSERT_FALSE(fits.empty()) << reports;

  // An overlay is run on one of them: the small one comes last.
  Experiment experiment = Load(fits.back()).experiment;
  EXPECT_FALSE(experiment.summary().empty());
  Shrink(shapes, experiment);
  const std::string folder =
      JoinPath(testing::TempDir(),
               absl::StrReplaceAll(GetParam(), {{"/", "_"}, {".", "_"}}));
  ASSERT_TRUE(RemoveTree(folder).ok());
  ASSERT_TRUE(MakeDirectories(folder).ok());
  setenv("BUILD_WORKING_DIRECTORY", folder.c_str(), 1);
  const std::string path = JoinPath(folder, "small.pbtxt");
  ASSERT_TRUE(AtomicWriteFile(path, PrintExperiment(experiment)).ok());
  EXPECT_EQ(RunTrainer({"trainer", "--config=" + path,
                        "--merge=device: CPU checkpoint { folder: 'run' }"}),
            kExitDone);
  const LoadResult loaded = Load(fits.back());
  for (const ResolvedStage& stage :
       ResolveStages(loaded.experiment, loaded.provenance).stages) {
    EXPECT_TRUE(PathExists(
        JoinPath(folder, absl::StrCat("run/", stage.name, "/result.pbtxt"))))
        << stage.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Configs, testing::ValuesIn(AllConfigs()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             if (!absl::ascii_isalnum(c)) c = '_';
                           return name;
                         });

// What the full-size recipe promises: pretraining and ALBEF's five evaluations,
// each fine-tuned at 384 px from that one checkpoint.
class Paper : public testing::Test {
 protected:
  void SetUp() override {
    nowhere_ = JoinPath(testing::TempDir(), "nowhere");
    setenv("SEMVQ_DATA", nowhere_.c_str(), 1);
    auto source = ReadSource(JoinPath(ConfigFolder(), "paper.pbtxt"));
    ASSERT_TRUE(source.ok()) << source.status();
    loaded_ = LoadExperiment({*source});
    ASSERT_TRUE(CheckExperiment(loaded_).empty());
    for (ResolvedStage& stage :
         ResolveStages(loaded_.experiment, loaded_.provenance).stages) {
      stages_[stage.name] = std::move(stage.experiment);
    }
    folder_ = JoinPath(testing::TempDir(), "paper");
    ASSERT_TRUE(RemoveTree(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    setenv("BUILD_WORKING_DIRECTORY", folder_.c_str(), 1);
  }

  std::string nowhere_, folder_;
  LoadResult loaded_;
  std::map<std::string, Experiment> stages_;
};

TEST_F(Paper, PretrainsAndFineTunesEveryTask) {
  const std::map<std::string, std::string> tasks = {
      {"coco_retrieval", "RetrievalConfig"},
      {"flickr30k_retrieval", "RetrievalConfig"},
      {"vqa", "VqaConfig"},
      {"visual_entailment", "VisualEntailmentConfig"},
      {"nlvr2", "Nlvr2Config"},
      {"grounding", "GroundingConfig"}};
  for (const auto& [name, config] : tasks) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(stages_.count(name) > 0);
    const Experiment& e = stages_[name];
    EXPECT_GE(e.tasks_size(), 2) << "each is evaluated on two splits";
    for (const TaskConfig& task : e.tasks()) {
      EXPECT_EQ(AnyTypeName(task.config()), "semvq." + config);
    }
    EXPECT_TRUE(e.teacher().enabled());
    EXPECT_EQ(e.optimizer().weight_decay(), 0.02);
    EXPECT_EQ(e.schedule().min_lr(), 1e-6);
    // Back to the one pretraining.
    std::string from = e.init_from().stage();
    if (from != "pretrain") from = stages_[from].init_from().stage();
    EXPECT_EQ(from, "pretrain");
    // No other task's data is asked for; pretraining's is every stage's.
    for (const DataStream& stream : e.data().streams()) {
      const bool pairs = stream.name() == "pairs";
      EXPECT_EQ(stream.transform().size(), pairs ? 256 : 384);
      EXPECT_GT(stream.expected_samples(), 0) << stream.name();
      bool used = pairs || stream.name() == e.trainer().stream();
      for (const TaskConfig& task : e.tasks()) {
        used = used || task.stream() == stream.name();
      }
      EXPECT_TRUE(used) << stream.name();
    }
  }
  EXPECT_EQ(stages_.size(), tasks.size() + 2) << "and text assignment";
  const Experiment& text_assignment = stages_["nlvr2_text_assignment"];
  EXPECT_EQ(text_assignment.init_from().stage(), "pretrain");
  EXPECT_EQ(text_assignment.trainer().stream(), "pairs");
  EXPECT_FALSE(stages_["pretrain"].init_from().has_stage());
}

// A task that is added later starts from the pretraining that is there.
TEST_F(Paper, AnotherTaskLeavesThePretrainingAsItIs) {
  std::vector<SourceText> sources;
  for (const char* file : {"paper.pbtxt", "tasks/captioning.pbtxt"}) {
    auto source = ReadSource(JoinPath(ConfigFolder(), file));
    ASSERT_TRUE(source.ok()) << source.status();
    sources.push_back(*std::move(source));
  }
  const LoadResult more = LoadExperiment(sources);
  ASSERT_TRUE(CheckExperiment(more).empty());
  const auto stages = ResolveStages(more.experiment, more.provenance).stages;
  ASSERT_EQ(stages.size(), stages_.size() + 1);
  for (const ResolvedStage& stage : stages) {
    if (stage.name == "captioning") continue;
    EXPECT_EQ(ConfigHash(stage.experiment), ConfigHash(stages_[stage.name]))
        << stage.name;
  }
}

TEST_F(Paper, NamesEveryFileThatIsNotThere) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = RunTrainer(
      {"trainer", "--config=" + JoinPath(ConfigFolder(), "paper.pbtxt")});
  testing::internal::GetCapturedStdout();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, kExitBadInput);
  for (const char* file : {"coco.json",
                           "vg.json",
                           "cc3m.json",
                           "sbu.json",
                           "coco_train.json",
                           "coco_val.json",
                           "coco_test.json",
                           "flickr30k_train.json",
                           "flickr30k_val.json",
                           "flickr30k_test.json",
                           "v2_OpenEnded_mscoco_train2014_questions.json",
                           "v2_OpenEnded_mscoco_val2014_questions.json",
                           "v2_OpenEnded_mscoco_test2015_questions.json",
                           "v2_mscoco_train2014_annotations.json",
                           "v2_mscoco_val2014_annotations.json",
                           "vqa_answer_list.json",
                           "snli_ve_train.jsonl",
                           "snli_ve_dev.jsonl",
                           "snli_ve_test.jsonl",
                           "nlvr2_train.jsonl",
                           "nlvr2_dev.jsonl",
                           "nlvr2_test1.jsonl",
                           "refcoco+_train.json",
                           "refcoco+_val.json",
                           "refcoco+_test.json",
                           "refcoco+_boxes.json",
                           "bert-base-uncased-vocab.txt",
                           "bert-base-uncased.safetensors",
                           "deit_base_patch16_224.safetensors"}) {
    EXPECT_TRUE(absl::StrContains(
        said, absl::StrCat("  ", JoinPath(nowhere_, file), "\n")))
        << file << " in\n"
        << said;
  }
  EXPECT_TRUE(absl::StrContains(said, "wants 29 files that are not there"))
      << said;
  EXPECT_FALSE(PathExists(JoinPath(folder_, "runs")));
}

TEST_F(Paper, IsPlannedWithoutData) {
  Experiment experiment = loaded_.experiment;
  Shrink(nowhere_, experiment);
  const std::string path = JoinPath(folder_, "small.pbtxt");
  ASSERT_TRUE(AtomicWriteFile(path, PrintExperiment(experiment)).ok());
  testing::internal::CaptureStdout();
  // Shrinking took the number away.
  const int code = RunTrainer(
      {"trainer", "--config=" + path, "--mode=plan",
       "--merge=device: CPU stages { name: 'vqa' with { "
       "tasks { name: 'vqa' config { [type.googleapis.com/semvq.VqaConfig] { "
       "expected_answers: 3128 } } } tasks { name: 'vqa_test' config { "
       "[type.googleapis.com/semvq.VqaConfig] { expected_answers: 3128 } } } "
       "} }"});
  const std::string plan = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, kExitDone);
  const std::vector<std::string> planned = absl::StrSplit(plan, "images/s,");
  EXPECT_EQ(planned.size(), stages_.size() + 1) << plan;
  EXPECT_FALSE(absl::StrContains(plan, "not planned")) << plan;
}

// The stages of benchmarks_small, with an arm's overlay where one is named.
std::map<std::string, Experiment> SmallBenchmarks(const std::string& arm = "") {
  setenv("SEMVQ_DATA", testing::TempDir().c_str(), 1);
  std::vector<std::string> files = {"benchmarks_small.pbtxt"};
  if (!arm.empty())
    files.push_back(absl::StrCat("ablations/benchmarks/", arm, ".pbtxt"));
  std::vector<SourceText> sources;
  for (const std::string& file : files) {
    auto source = ReadSource(JoinPath(ConfigFolder(), file), file);
    EXPECT_TRUE(source.ok()) << source.status();
    if (source.ok()) sources.push_back(*std::move(source));
  }
  const LoadResult loaded = LoadExperiment(sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  EXPECT_TRUE(errors.empty()) << FormatReport(errors);
  std::map<std::string, Experiment> stages;
  for (ResolvedStage& stage :
       ResolveStages(loaded.experiment, loaded.provenance).stages) {
    stages[stage.name] = std::move(stage.experiment);
  }
  return stages;
}

TEST(SmallBenchmarksTest, RunEveryBenchmarkFromOnePretraining) {
  std::set<std::string> tasks;
  for (const auto& [name, e] : SmallBenchmarks()) {
    for (const TaskConfig& task : e.tasks())
      tasks.insert(AnyTypeName(task.config()));
    if (name == "pretrain") continue;
    EXPECT_EQ(e.init_from().stage(),
              name == "nlvr2" ? "nlvr2_text_assignment" : "pretrain");
  }
  for (const char* task :
       {"Retrieval", "Vqa", "Nlvr2", "VisualEntailment", "Grounding",
        "Classification", "Captioning", "CodebookSemantics", "MimAccuracy"}) {
    EXPECT_EQ(tasks.count(absl::StrCat("semvq.", task, "Config")), 1u) << task;
  }
}

// A baseline differs in the one encoder that is blank, from fine-tuning on.
TEST(SmallBenchmarksTest, BaselinesStartFromTheSamePretraining) {
  const auto stages = SmallBenchmarks();
  for (const auto& [arm, blank] : std::map<std::string, std::string>{
           {"text_only", "image"}, {"image_only", "text"}}) {
    SCOPED_TRACE(arm);
    int blanked = 0;
    for (auto [name, e] : SmallBenchmarks(arm)) {
      SCOPED_TRACE(name);
      ASSERT_EQ(stages.count(name), 1u);
      const bool shared = name == "pretrain" || name == "nlvr2_text_assignment";
      for (EncoderConfig& encoder : *e.mutable_encoders()) {
        EXPECT_EQ(encoder.blank_input(), !shared && encoder.name() == blank);
        blanked += encoder.blank_input();
        encoder.clear_blank_input();
      }
      EXPECT_EQ(ConfigHash(e), ConfigHash(stages.at(name)));
    }
    EXPECT_EQ(blanked, 4);
  }
}

TEST(SmallBenchmarksTest, TheArmWithoutCodebookHasNone) {
  const auto stages = SmallBenchmarks(),
             without = SmallBenchmarks("no_codebook");
  EXPECT_EQ(stages.size(), without.size());
  for (const auto& [name, e] : without) {
    SCOPED_TRACE(name);
    EXPECT_EQ(e.quantizers_size(), 0);
    EXPECT_EQ(e.visual_tokens().mode(), VisualTokens::CONTINUOUS);
    for (const ObjectiveConfig& objective : e.objectives()) {
      EXPECT_NE(objective.name(), "mim");
      EXPECT_NE(objective.name(), "reconstruction");
    }
    // Trained as long, on the same.
    EXPECT_EQ(e.trainer().DebugString(),
              stages.at(name).trainer().DebugString());
  }
}

}  // namespace
}  // namespace semvq
