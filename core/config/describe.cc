#include "core/config/describe.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/config/names.h"
#include "core/config/parse.h"

namespace semvq {
namespace {

using google::protobuf::FieldDescriptor;

constexpr size_t kLongestShown = 60;

// The kinds of plugin that an Any field takes; empty: any kind.
std::vector<PluginKind> KindsOf(const FieldDescriptor& field,
                                const Registry& registry) {
  const std::string& list = field.containing_type()->full_name();
  if (list == "semvq.EncoderConfig") {
    return {PluginKind::kImageEncoder, PluginKind::kTextEncoder,
            PluginKind::kFusionEncoder};
  }
  if (list == "semvq.QuantizerConfig") return {PluginKind::kQuantizer};
  if (list == "semvq.ObjectiveConfig") return {PluginKind::kObjective};
  if (list == "semvq.TaskConfig") return {PluginKind::kTask};
  if (list == "semvq.DataStream") return {PluginKind::kDataSource};
  // In a plugin's config: one of its own kind (core/plugin/nested.h).
  if (const PluginType* host = registry.Find(list)) return {host->kind};
  return {};
}

}  // namespace

std::string Shown(absl::string_view text) {
  std::string shown;
  for (const char c : text.substr(0, kLongestShown)) {
    const bool control = absl::ascii_iscntrl(static_cast<unsigned char>(c));
    absl::StrAppend(&shown, control ? "?" : absl::string_view(&c, 1));
  }
  if (text.size() > kLongestShown) shown += "...";
  return shown;
}

std::string Expected(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return "a whole number in 32 bits";
    case FieldDescriptor::CPPTYPE_INT64:
      return "a whole number";
    case FieldDescriptor::CPPTYPE_UINT32:
      return "a whole number from 0 in 32 bits";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "a whole number from 0";
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "a \"string\"";
    case FieldDescriptor::CPPTYPE_ENUM: {
      std::vector<std::string> values;
      for (int i = 0; i < field.enum_type()->value_count(); ++i) {
        values.push_back(field.enum_type()->value(i)->name());
      }
      return absl::StrCat("one of ", absl::StrJoin(values, ", "));
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return IsAny(*field.message_type())
                 ? absl::StrCat("{ [", kAnyPrefix, "<type>] { ... } }")
                 : "{ ... }";
  }
  return "a value";
}

std::string UnknownType(const std::string& name, const FieldDescriptor& field,
                        const Registry& registry) {
  std::vector<std::string> known;
  std::vector<std::string> kinds;
  for (const PluginKind kind : KindsOf(field, registry)) {
    kinds.push_back(std::string(PluginKindName(kind)));
    for (const PluginType* type : registry.OfKind(kind)) {
      known.push_back(type->name());
    }
  }
  if (kinds.empty()) {
    kinds.push_back("plugin");
    for (const PluginType* type : registry.All()) {
      known.push_back(type->name());
    }
  }
  const std::string nearest = NearestName(name, known);
  return absl::StrCat(
      "no plugin of type \"", Shown(name), "\" is linked in",
      nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?"),
      " (", absl::StrJoin(kinds, ", "),
      " types: ", known.empty() ? "none" : absl::StrJoin(known, ", "), ")");
}

}  // namespace semvq
