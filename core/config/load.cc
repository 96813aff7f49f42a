#include "core/config/load.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/config/names.h"
#include "core/config/parse.h"

namespace semvq {

LoadResult LoadExperiment(const std::vector<SourceText>& sources,
                          const Registry& registry) {
  LoadResult result;
  for (const SourceText& source : sources) {
    Experiment part;
    Provenance provenance;
    if (!ParseText(source, registry, &part, &provenance, &result.errors)) {
      result.syntax_error = true;
    }
    MergeExperiment({&part, &provenance, ""}, registry, &result.experiment,
                    &result.provenance, &result.errors);
  }
  for (Stage& stage : *result.experiment.mutable_stages()) {
    if (!stage.has_with()) continue;
    DropSettledRemovals(result.experiment, result.provenance,
                        FieldPath(EntryPath("stages", stage.name()), "with"),
                        stage.mutable_with());
  }
  return result;
}

StagesResult ResolveStages(const Experiment& experiment,
                           const Provenance& provenance,
                           const Registry& registry) {
  StagesResult result;
  ResolvedStage base;
  base.experiment = experiment;
  base.experiment.clear_stages();
  base.provenance = provenance;
  base.provenance.Erase("stages");

  std::vector<std::string> earlier;
  for (const Stage& stage : experiment.stages()) {
    ResolvedStage resolved = base;
    resolved.name = stage.name();
    const std::string path =
        FieldPath(EntryPath("stages", stage.name()), "with");
    Experiment overlay = stage.with();
    if (overlay.stages_size() > 0) {
      result.errors.push_back(ErrorAt(provenance, FieldPath(path, "stages"),
                                      "a stage cannot hold stages"));
      overlay.clear_stages();
    }
    MergeExperiment({&overlay, &provenance, path}, registry,
                    &resolved.experiment, &resolved.provenance, &result.errors);
    const InitFrom& init = resolved.experiment.init_from();
    if (init.has_stage() && std::find(earlier.begin(), earlier.end(),
                                      init.stage()) == earlier.end()) {
      result.errors.push_back(
          ErrorAt(resolved.provenance, "init_from.stage",
                  absl::StrCat("stage \"", stage.name(), "\" starts from \"",
                               init.stage(), "\", which is no earlier stage",
                               DidYouMean(init.stage(), earlier))));
    }
    earlier.push_back(stage.name());
    result.stages.push_back(std::move(resolved));
  }
  if (result.stages.empty()) {
    base.name = "train";
    if (base.experiment.init_from().has_stage()) {
      result.errors.push_back(
          ErrorAt(base.provenance, "init_from.stage",
                  absl::StrCat("got \"", base.experiment.init_from().stage(),
                               "\", but the experiment has no stages; name a "
                               "checkpoint by path: \"...\"")));
    }
    result.stages.push_back(std::move(base));
  }
  return result;
}

}  // namespace semvq
