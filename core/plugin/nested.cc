#include "core/plugin/nested.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;
using pb::FieldDescriptor;

std::string TypeName(const pb::Any& any) {
  return any.type_url().substr(any.type_url().rfind('/') + 1);
}

std::string Joined(absl::string_view parent, absl::string_view field) {
  return parent.empty() || field.empty() ? absl::StrCat(parent, field)
                                         : absl::StrCat(parent, ".", field);
}

// The field that a line of a plugin's Validate starts with, with what follows
// it as far as it is a path (levels[2], block.size); empty when there is none.
std::string LeadingField(absl::string_view line, const pb::Message& config) {
  size_t end = 0;
  while (end < line.size() &&
         (absl::ascii_isalnum(line[end]) || line[end] == '_' ||
          line[end] == '.' || line[end] == '[' || line[end] == ']' ||
          line[end] == '"')) {
    ++end;
  }
  absl::string_view path = line.substr(0, end);
  while (absl::ConsumeSuffix(&path, ".")) {
  }
  const std::string first(path.substr(0, path.find_first_of(".[")));
  return config.GetDescriptor()->FindFieldByName(first) == nullptr
             ? ""
             : std::string(path);
}

class Checker {
 public:
  explicit Checker(const Registry& registry) : registry_(registry) {}

  void Check(const PluginType& type, const pb::Message& config,
             const std::string& path) {
    Own(type, config, path);
    Nested(type, config, path);
  }

  std::vector<PluginError> errors;

 private:
  void Fail(std::string path, std::string message) {
    errors.push_back({std::move(path), std::move(message)});
  }

  void Own(const PluginType& type, const pb::Message& config,
           const std::string& path) {
    std::vector<std::string> missing;
    config.FindInitializationErrors(&missing);
    for (const std::string& field : missing)
      Fail(Joined(path, field), "required, but not set");
    if (!missing.empty() || !Finite(config, path)) return;
    const absl::Status status = type.validate(config);
    if (status.ok()) return;
    for (absl::string_view line :
         absl::StrSplit(status.message(), '\n', absl::SkipWhitespace())) {
      line = absl::StripAsciiWhitespace(line);
      Fail(Joined(path, LeadingField(line, config)), std::string(line));
    }
    if (status.message().empty())
      Fail(path, "invalid, its plugin does not say why");
  }

  // Every message in `message`, with its path.
  template <class Visit>
  static void ForEachMessage(const pb::Message& message,
                             const std::string& path, const Visit& visit) {
    const pb::Reflection* r = message.GetReflection();
    std::vector<const FieldDescriptor*> set;
    r->ListFields(message, &set);
    for (const FieldDescriptor* field : set) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      const std::string here = Joined(path, field->name());
      if (!field->is_repeated()) {
        visit(r->GetMessage(message, field), here);
        continue;
      }
      for (int i = 0; i < r->FieldSize(message, field); ++i) {
        visit(r->GetRepeatedMessage(message, field, i),
              absl::StrCat(here, "[", i, "]"));
      }
    }
  }

  // No plugin has a use for NaN or infinity, and comparisons let NaN slip.
  bool Finite(const pb::Message& message, const std::string& path) {
    const pb::Reflection* r = message.GetReflection();
    std::vector<const FieldDescriptor*> set;
    r->ListFields(message, &set);
    bool finite = true;
    for (const FieldDescriptor* field : set) {
      const bool list = field->is_repeated();
      for (int i = 0; i < (list ? r->FieldSize(message, field) : 1); ++i) {
        double value = 0;
        if (field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE) {
          value = list ? r->GetRepeatedDouble(message, field, i)
                       : r->GetDouble(message, field);
        } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
          value = list ? r->GetRepeatedFloat(message, field, i)
                       : r->GetFloat(message, field);
        }
        if (std::isfinite(value)) continue;
        const std::string here = Joined(path, field->name());
        Fail(list ? absl::StrCat(here, "[", i, "]") : here,
             "not finite; expected a finite number");
        finite = false;
      }
    }
    ForEachMessage(message, path,
                   [&](const pb::Message& inner, const std::string& here) {
                     finite &= Finite(inner, here);
                   });
    return finite;
  }

  void Nested(const PluginType& host, const pb::Message& message,
              const std::string& path) {
    ForEachMessage(
        message, path, [&](const pb::Message& inner, const std::string& here) {
          if (inner.GetDescriptor() != pb::Any::descriptor())
            return Nested(host, inner, here);
          const auto& any = static_cast<const pb::Any&>(inner);
          if (any.type_url().empty()) return;  // The host's Validate judges.
          absl::StatusOr<UnpackedPlugin> plugin =
              UnpackPlugin(any, host.kind, registry_);
          if (!plugin.ok())
            return Fail(here, std::string(plugin.status().message()));
          Check(*plugin->type, *plugin->config, here);
        });
  }

  const Registry& registry_;
};

}  // namespace

std::vector<PluginError> CheckPluginConfig(const pb::Message& config,
                                           const Registry& registry) {
  const std::string& name = config.GetDescriptor()->full_name();
  const PluginType* type = registry.Find(name);
  if (type == nullptr)
    return {
        {"", absl::StrCat("no plugin of type \"", name, "\" is linked in")}};
  Checker checker(registry);
  checker.Check(*type, config, "");
  return std::move(checker.errors);
}

absl::StatusOr<UnpackedPlugin> UnpackPlugin(const pb::Any& any, PluginKind kind,
                                            const Registry& registry) {
  const std::string name = TypeName(any);
  const std::string expected =
      absl::StrCat("; expected one of ", PluginTypeList({kind}, registry));
  UnpackedPlugin plugin;
  plugin.type = registry.Find(name);
  if (plugin.type == nullptr) {
    return absl::NotFoundError(absl::StrCat("no plugin of type \"", name,
                                            "\" is linked in", expected));
  }
  if (plugin.type->kind != kind) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is a plugin of kind ",
                     PluginKindName(plugin.type->kind), expected));
  }
  plugin.config.reset(plugin.type->prototype->New());
  if (!plugin.config->ParsePartialFromString(any.value())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the bytes of a ", name, " are damaged"));
  }
  return plugin;
}

void AddNestedNeeds(absl::string_view field, const Contract& nested,
                    Contract* host) {
  for (NeededView view : nested.needs) {
    view.field = Joined(field, view.field);
    host->needs.push_back(std::move(view));
  }
  for (NeededFile file : nested.files) {
    file.field = Joined(field, file.field);
    host->files.push_back(std::move(file));
  }
  for (const std::string& key : nested.batch_keys) {
    std::vector<std::string>& keys = host->batch_keys;
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      keys.push_back(key);
  }
  host->needs_teacher |= nested.needs_teacher;
  host->varying_graph |= nested.varying_graph;
}

std::string PluginTypeList(const std::vector<PluginKind>& kinds,
                           const Registry& registry) {
  std::vector<std::string> types;
  std::vector<absl::string_view> names;
  for (const PluginKind kind : kinds) {
    names.push_back(PluginKindName(kind));
    for (const PluginType* type : registry.OfKind(kind))
      types.push_back(type->name());
  }
  if (!types.empty()) return absl::StrJoin(types, ", ");
  return absl::StrCat("(none of kind ", absl::StrJoin(names, " or "),
                      " is linked in)");
}

}  // namespace semvq
