// Reads one source text into a message and collects everything wrong with it.
#ifndef SEMVQ_CORE_CONFIG_PARSE_H_
#define SEMVQ_CORE_CONFIG_PARSE_H_

#include <vector>

#include "core/config/source.h"
#include "core/plugin/registry.h"
#include "google/protobuf/message.h"

namespace semvq {

// Reads protobuf text format. Unlike TextFormat::Parser, which stops at a wrong
// value, it goes on after every error but one in the text's structure: unknown
// fields, unknown plugin types (an Any holds the registry's types only), wrong
// values, values set twice, and entries without a name or with one used before.
// What could be read is in `message`, the rest is broken in `provenance`.
// False when the text's structure is wrong; nothing after that was read.
bool ParseText(const SourceText& source, const Registry& registry,
               google::protobuf::Message* message, Provenance* provenance,
               std::vector<ConfigError>* errors);

// The `name` field of messages that lists merge by name; null for others.
const google::protobuf::FieldDescriptor* NameField(
    const google::protobuf::Descriptor& type);

bool IsAny(const google::protobuf::Descriptor& type);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_PARSE_H_
