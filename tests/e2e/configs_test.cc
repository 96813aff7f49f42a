// Every file in configs/ is read, checked and run for two tiny steps a stage.

#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/config/load.h"
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

}  // namespace
}  // namespace semvq
