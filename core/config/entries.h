// The plugin instances of a stage, resolved; shared by this folder's checks.
#ifndef SEMVQ_CORE_CONFIG_ENTRIES_H_
#define SEMVQ_CORE_CONFIG_ENTRIES_H_

#include <memory>
#include <string>
#include <vector>

#include "core/config/source.h"
#include "core/plugin/registry.h"
#include "google/protobuf/message.h"
#include "protos/experiment.pb.h"

namespace semvq {

struct PluginEntry {
  std::string name;
  std::string path;                  // objectives["mlm"]
  std::string config_path;           // objectives["mlm"].config
  const PluginType* type = nullptr;  // Null: unknown, of a wrong kind or unset.
  std::unique_ptr<google::protobuf::Message> config;
  bool valid = false;  // Its own Validate found nothing.
  bool exact = false;  // Nothing of its config was unreadable.

  bool Is(PluginKind kind) const {
    return type != nullptr && type->kind == kind;
  }
};

struct PluginEntries {
  std::vector<PluginEntry> encoders;
  std::vector<PluginEntry> quantizers;
  std::vector<PluginEntry> objectives;
  std::vector<PluginEntry> tasks;
  std::vector<PluginEntry> streams;  // Their sources.
};

// Unpacks every plugin's config, checks its kind and asks its Validate.
PluginEntries CheckPlugins(const Experiment& stage,
                           const Provenance& provenance,
                           const Registry& registry,
                           std::vector<ConfigError>* errors);

// Values, names and references of the core's own messages.
void CheckValues(const Experiment& stage, const Provenance& provenance,
                 std::vector<ConfigError>* errors);

// Adds all contracts to `book` and matches them.
void CheckContracts(const Experiment& stage, const PluginEntries& entries,
                    const Provenance& provenance, ContractBook* book,
                    std::vector<ConfigError>* errors);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_ENTRIES_H_
