// Merges one experiment into another, by reflection.
#ifndef SEMVQ_CORE_CONFIG_MERGE_H_
#define SEMVQ_CORE_CONFIG_MERGE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/config/source.h"
#include "core/plugin/registry.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"

namespace semvq {

struct MergeSide {
  const google::protobuf::Message* message;
  const Provenance* provenance;
  std::string path;  // Of `message` in `provenance`; empty: the root.
};

// Merges `from` into `to` by the rules of experiment.proto: scalars replace,
// messages merge, lists of named messages merge by name (new names at the end,
// `remove: true` drops), other lists replace, an Any merges when it holds the
// same plugin type and is replaced otherwise. A member of a oneof replaces the
// others. `provenance` follows `to`, whose path is the root. Removing a name
// that is not there is added to `errors` at `from`'s path.
// In `Stage.with` entries with `remove: true` stay, for ResolveStages.
void MergeExperiment(const MergeSide& from, const Registry& registry,
                     google::protobuf::Message* to, Provenance* provenance,
                     std::vector<ConfigError>* errors);

// Drops entries of `overlay` (at `overlay_path`) with `remove: true` whose
// entry of `base` another source removed already: nothing is left for them to
// do, and the experiment can be printed and read back without them.
void DropSettledRemovals(const google::protobuf::Message& base,
                         const Provenance& provenance,
                         const std::string& overlay_path,
                         google::protobuf::Message* overlay);

// The config message that `any` holds. NotFound when its type is not linked in,
// InvalidArgument when its bytes are not of that type.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> UnpackConfig(
    const google::protobuf::Any& any,
    const Registry& registry = Registry::Global());

// The registered type of the config that `any` holds; null when it is not
// linked in.
const PluginType* PluginTypeOf(const google::protobuf::Any& any,
                               const Registry& registry = Registry::Global());

// The full name of the type that `any` holds.
std::string AnyTypeName(const google::protobuf::Any& any);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_MERGE_H_
