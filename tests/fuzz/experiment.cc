// Experiment texts and overlays: parts of the input are merged in order, then
// stages are resolved, and everything is validated, printed and read back.
#include "core/config/load.h"
#include "core/config/print.h"
#include "core/config/validate.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace semvq;  // NOLINT: a file of one function.
  std::vector<SourceText> sources;
  for (absl::string_view part : fuzz::Parts(fuzz::Bytes(data, size))) {
    sources.push_back({"source", std::string(part)});
  }
  const LoadResult loaded = LoadExperiment(sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  FUZZ_CHECK(loaded.errors.empty() || !errors.empty());
  FUZZ_CHECK(FormatReport(errors).empty() == errors.empty());
  if (!loaded.errors.empty()) return 0;

  // What was read can be printed, and is then read as the same.
  const std::string text = PrintExperiment(loaded.experiment);
  const LoadResult again = LoadExperiment({{"printed", text}});
  FUZZ_CHECK(again.errors.empty());
  FUZZ_CHECK(PrintExperiment(again.experiment) == text);
  FUZZ_CHECK(ConfigHash(again.experiment) == ConfigHash(loaded.experiment));
  if (!errors.empty()) return 0;

  // A valid experiment has stages whose contracts match.
  const StagesResult stages =
      ResolveStages(loaded.experiment, loaded.provenance);
  FUZZ_CHECK(stages.errors.empty());
  FUZZ_CHECK(!stages.stages.empty());
  for (const ResolvedStage& stage : stages.stages) {
    FUZZ_CHECK(BuildContracts(stage.experiment).ok());
    Experiment expanded = stage.experiment;
    ExpandVariables(stage.provenance, &expanded, Registry::Global(),
                    [](const std::string& name) -> absl::optional<std::string> {
                      if (name == "UNSET") return absl::nullopt;
                      return "value of " + name;
                    });
  }
  return 0;
}
