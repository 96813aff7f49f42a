// Words for messages about a text.
#ifndef SEMVQ_CORE_CONFIG_DESCRIBE_H_
#define SEMVQ_CORE_CONFIG_DESCRIBE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "core/plugin/registry.h"
#include "google/protobuf/descriptor.h"

namespace semvq {

inline constexpr char kAnyPrefix[] = "type.googleapis.com/";

// Text of the user's, cut and without control characters.
std::string Shown(absl::string_view text);

// What a field of this type takes: "a whole number", "one of FIRST, MEAN".
std::string Expected(const google::protobuf::FieldDescriptor& field);

// That no plugin type `name` is linked in, the nearest, and those that `field`,
// an Any, takes.
std::string UnknownType(const std::string& name,
                        const google::protobuf::FieldDescriptor& field,
                        const Registry& registry);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_DESCRIBE_H_
