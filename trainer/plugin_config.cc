#include "trainer/plugin_config.h"

#include "absl/strings/str_cat.h"

namespace semvq {

const PluginType* PluginTypeOf(const google::protobuf::Any& any) {
  const absl::string_view url = any.type_url();
  return Registry::Global().Find(url.substr(url.rfind('/') + 1));
}

absl::StatusOr<std::unique_ptr<google::protobuf::Message>> UnpackPluginConfig(
    const google::protobuf::Any& any) {
  const PluginType* type = PluginTypeOf(any);
  if (type == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("plugin type ", any.type_url(), " is not linked in"));
  }
  std::unique_ptr<google::protobuf::Message> config(type->prototype->New());
  if (!any.UnpackTo(config.get())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the config of type ", type->name(), " cannot be read"));
  }
  return config;
}

}  // namespace semvq
