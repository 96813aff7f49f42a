#include "core/plugin/registry.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "protos/options.pb.h"

namespace semvq {

absl::string_view PluginKindName(PluginKind kind) {
  switch (kind) {
    case PluginKind::kImageEncoder:
      return "image encoder";
    case PluginKind::kTextEncoder:
      return "text encoder";
    case PluginKind::kFusionEncoder:
      return "fusion encoder";
    case PluginKind::kQuantizer:
      return "quantizer";
    case PluginKind::kObjective:
      return "objective";
    case PluginKind::kTask:
      return "task";
    case PluginKind::kDataSource:
      return "data source";
  }
  return "plugin";
}

std::string PluginType::doc() const {
  return config->options().GetExtension(plugin_doc);
}

Registry& Registry::Global() {
  static Registry* registry = new Registry;  // Never destroyed: plugins may be
                                             // used by other static objects.
  return *registry;
}

void Registry::Add(PluginType type) {
  if (const PluginType* other = Find(type.name())) {
    std::fprintf(stderr,
                 "plugin type %s is registered twice: in %s and in %s; rename "
                 "one config message\n",
                 type.name().c_str(), other->file.c_str(), type.file.c_str());
    std::abort();
  }
  types_.push_back(std::move(type));
}

const PluginType* Registry::Find(absl::string_view full_name) const {
  for (const PluginType& type : types_) {
    if (type.name() == full_name) return &type;
  }
  return nullptr;
}

std::vector<const PluginType*> Registry::All() const {
  std::vector<const PluginType*> all;
  for (const PluginType& type : types_) all.push_back(&type);
  std::sort(
      all.begin(), all.end(), [](const PluginType* a, const PluginType* b) {
        return a->kind != b->kind ? a->kind < b->kind : a->name() < b->name();
      });
  return all;
}

std::vector<const PluginType*> Registry::OfKind(PluginKind kind) const {
  std::vector<const PluginType*> all = All();
  all.erase(
      std::remove_if(all.begin(), all.end(),
                     [kind](const PluginType* t) { return t->kind != kind; }),
      all.end());
  return all;
}

absl::StatusOr<std::shared_ptr<void>> Registry::MakeErased(
    PluginKind kind, const google::protobuf::Message& config,
    const PluginContext& context) const {
  const std::string& name = config.GetDescriptor()->full_name();
  const PluginType* type = Find(name);
  if (type == nullptr || type->kind != kind) {
    std::vector<std::string> known;
    for (const PluginType* t : OfKind(kind)) known.push_back(t->name());
    const std::string list =
        absl::StrCat("; linked in: ", absl::StrJoin(known, ", "));
    if (type == nullptr) {
      return absl::NotFoundError(absl::StrCat("no ", PluginKindName(kind),
                                              " of type ", name,
                                              " is linked in", list));
    }
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is a ", PluginKindName(type->kind),
                     ", expected a ", PluginKindName(kind), list));
  }
  try {
    return type->make(config, context);
  } catch (const std::exception& e) {
    // LibTorch's exceptions, as for want of memory, end with a backtrace.
    const std::string what = e.what();
    return absl::ResourceExhaustedError(absl::StrCat(
        name, " could not be built: ", what.substr(0, what.find('\n')),
        "; is a size in its config too large?"));
  }
}

}  // namespace semvq
