#ifndef SEMVQ_TRAINER_PLUGIN_CONFIG_H_
#define SEMVQ_TRAINER_PLUGIN_CONFIG_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/plugin/registry.h"
#include "google/protobuf/any.pb.h"

namespace semvq {

// The registered type of a plugin's config; null when it is not linked in.
const PluginType* PluginTypeOf(const google::protobuf::Any& any);

// The typed config. NotFound when its type is not linked in.
absl::StatusOr<std::unique_ptr<google::protobuf::Message>> UnpackPluginConfig(
    const google::protobuf::Any& any);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_PLUGIN_CONFIG_H_
