#include "core/config/validate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/config/entries.h"
#include "core/config/merge.h"
#include "core/config/print.h"
#include "core/plugin/nested.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;

class PluginChecker {
 public:
  PluginChecker(const Provenance& provenance, const Registry& registry,
                std::vector<ConfigError>* errors)
      : provenance_(provenance), registry_(registry), errors_(errors) {}

  PluginEntry Check(const std::string& list, const std::string& name,
                    const std::string& field, bool has_config,
                    const pb::Any& any, const std::vector<PluginKind>& kinds) {
    PluginEntry entry;
    entry.name = name;
    entry.path = EntryPath(list, name);
    entry.config_path = FieldPath(entry.path, field);
    entry.exact = !provenance_.TouchesBroken(entry.config_path);
    if (!has_config || any.type_url().empty()) {
      Fail(entry.config_path, absl::StrCat("not set; expected [type.googleapis."
                                           "com/<type>] { ... }, one of ",
                                           PluginTypeList(kinds, registry_)));
      return entry;
    }
    absl::StatusOr<std::unique_ptr<pb::Message>> config =
        UnpackConfig(any, registry_);
    if (!config.ok()) {
      Fail(entry.config_path,
           absl::StrCat(config.status().message(), "; expected one of ",
                        PluginTypeList(kinds, registry_)));
      return entry;
    }
    const PluginType* type = registry_.Find(AnyTypeName(any));
    if (std::find(kinds.begin(), kinds.end(), type->kind) == kinds.end()) {
      Fail(entry.config_path,
           absl::StrCat(type->name(), " is a plugin of kind ",
                        PluginKindName(type->kind), "; expected one of ",
                        PluginTypeList(kinds, registry_)));
      return entry;
    }
    entry.type = type;
    entry.config = *std::move(config);
    entry.valid = Validate(entry);
    return entry;
  }

 private:
  bool Validate(const PluginEntry& entry) {
    const std::vector<PluginError> found =
        CheckPluginConfig(*entry.config, registry_);
    for (const PluginError& error : found) {
      Fail(error.path.empty() ? entry.config_path
                              : FieldPath(entry.config_path, error.path),
           error.message);
    }
    return found.empty();
  }

  void Fail(std::string path, std::string message) {
    if (provenance_.IsBroken(path)) return;
    errors_->push_back(
        ErrorAt(provenance_, std::move(path), std::move(message)));
  }

  const Provenance& provenance_;
  const Registry& registry_;
  std::vector<ConfigError>* errors_;
};

}  // namespace

PluginEntries CheckPlugins(const Experiment& stage,
                           const Provenance& provenance,
                           const Registry& registry,
                           std::vector<ConfigError>* errors) {
  PluginChecker checker(provenance, registry, errors);
  PluginEntries entries;
  for (const DataStream& s : stage.data().streams()) {
    entries.streams.push_back(checker.Check("data.streams", s.name(), "source",
                                            s.has_source(), s.source(),
                                            {PluginKind::kDataSource}));
  }
  for (const EncoderConfig& e : stage.encoders()) {
    entries.encoders.push_back(checker.Check(
        "encoders", e.name(), "config", e.has_config(), e.config(),
        {PluginKind::kImageEncoder, PluginKind::kTextEncoder,
         PluginKind::kFusionEncoder}));
  }
  for (const QuantizerConfig& q : stage.quantizers()) {
    entries.quantizers.push_back(checker.Check("quantizers", q.name(), "config",
                                               q.has_config(), q.config(),
                                               {PluginKind::kQuantizer}));
  }
  for (const ObjectiveConfig& o : stage.objectives()) {
    entries.objectives.push_back(checker.Check("objectives", o.name(), "config",
                                               o.has_config(), o.config(),
                                               {PluginKind::kObjective}));
  }
  for (const TaskConfig& t : stage.tasks()) {
    entries.tasks.push_back(checker.Check("tasks", t.name(), "config",
                                          t.has_config(), t.config(),
                                          {PluginKind::kTask}));
  }
  return entries;
}

std::vector<ConfigError> ValidateExperiment(const Experiment& stage,
                                            const Provenance& provenance,
                                            const Registry& registry) {
  std::vector<ConfigError> errors;
  CheckValues(stage, provenance, &errors);
  const PluginEntries entries =
      CheckPlugins(stage, provenance, registry, &errors);
  Experiment expanded = stage;
  std::vector<ConfigError> variables =
      ExpandVariables(provenance, &expanded, registry);
  errors.insert(errors.end(), variables.begin(), variables.end());
  ContractBook book;
  CheckContracts(stage, entries, provenance, &book, &errors);
  return errors;
}

std::vector<ConfigError> CheckExperiment(const LoadResult& loaded,
                                         const Registry& registry) {
  std::vector<ConfigError> errors = loaded.errors;
  if (loaded.syntax_error) return errors;
  const StagesResult resolved =
      ResolveStages(loaded.experiment, loaded.provenance, registry);
  errors.insert(errors.end(), resolved.errors.begin(), resolved.errors.end());
  for (const ResolvedStage& stage : resolved.stages) {
    for (ConfigError& error :
         ValidateExperiment(stage.experiment, stage.provenance, registry)) {
      const bool known =
          std::any_of(errors.begin(), errors.end(), [&](const ConfigError& e) {
            return e.path == error.path && e.line == error.line &&
                   e.file == error.file && e.message == error.message;
          });
      if (!known) errors.push_back(std::move(error));
    }
  }
  return errors;
}

absl::StatusOr<ContractBook> BuildContracts(const Experiment& stage,
                                            const Registry& registry) {
  std::vector<ConfigError> errors;
  const Provenance nowhere;
  const PluginEntries entries = CheckPlugins(stage, nowhere, registry, &errors);
  ContractBook book;
  CheckContracts(stage, entries, nowhere, &book, &errors);
  if (!errors.empty()) {
    return absl::InvalidArgumentError(FormatReport(std::move(errors)));
  }
  return book;
}

}  // namespace semvq
