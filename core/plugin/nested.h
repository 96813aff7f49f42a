// Plugins in plugins. A field of type google.protobuf.Any in a plugin's config
// holds a plugin of the same kind, in the experiment's own language:
//   [type.googleapis.com/semvq.ResidualConfig] {
//     quantizer { [type.googleapis.com/semvq.VqEmaConfig] { num_codes: 256 } }
//   }
// Reading, merging, printing, hashing and ${variables} need nothing for it. A
// wrapper's Validate says whether the field must be set (its type_url is empty
// when it is not, or could not be read), and nothing of what is in it; its
// Contract and Make ask the functions below.
#ifndef SEMVQ_CORE_PLUGIN_NESTED_H_
#define SEMVQ_CORE_PLUGIN_NESTED_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/plugin/contract.h"
#include "core/plugin/registry.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"

namespace semvq {

// One mistake in a plugin's config. `path` starts at the config
// ("quantizer.num_codes"); empty: the config as a whole.
struct PluginError {
  std::string path;
  std::string message;
};

// All that is wrong with `config`, a registered message, as far as it alone
// shows: required fields that are not set, numbers that are not finite, what
// its plugin's Validate says; then the same of the plugins nested in it, down
// to the last.
std::vector<PluginError> CheckPluginConfig(
    const google::protobuf::Message& config,
    const Registry& registry = Registry::Global());

// A plugin's type with its config.
struct UnpackedPlugin {
  const PluginType* type = nullptr;
  std::unique_ptr<google::protobuf::Message> config;
};

// What `any` holds. NotFound when its type is not linked in (or nothing is
// set), InvalidArgument when it is of another kind or its bytes are damaged.
absl::StatusOr<UnpackedPlugin> UnpackPlugin(
    const google::protobuf::Any& any, PluginKind kind,
    const Registry& registry = Registry::Global());

// Makes what the nested plugin of `field` needs of others a need of its host.
void AddNestedNeeds(absl::string_view field, const Contract& nested,
                    Contract* host);

// "semvq.VqConfig, semvq.VqEmaConfig": the types of these kinds, for messages.
std::string PluginTypeList(const std::vector<PluginKind>& kinds,
                           const Registry& registry = Registry::Global());

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_NESTED_H_
