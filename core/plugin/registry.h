// The registry of plugin types. A type's identity is the full name of its
// config message.
//
// One line in a plugin's register.cc:
//   SEMVQ_REGISTER(Quantizer, VqEmaConfig, MakeVqEma, ValidateVqEma,
//   VqEmaContract);
// with, declared in the plugin's header (which needs no LibTorch):
//   absl::Status ValidateVqEma(const VqEmaConfig&); pure: no files, no tensors
//   Contract VqEmaContract(const std::string& instance, const VqEmaConfig&,
//   const ContractBook&);    pure absl::StatusOr<std::shared_ptr<Quantizer>>
//   MakeVqEma(const VqEmaConfig&, const PluginContext&);
// ValidateVqEma may return several errors at once: join them with '\n'; each
// line should start with the field's name.
#ifndef SEMVQ_CORE_PLUGIN_REGISTRY_H_
#define SEMVQ_CORE_PLUGIN_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "google/protobuf/message.h"

namespace semvq {

class ImageEncoder;
class TextEncoder;
class FusionEncoder;
class Quantizer;
class Objective;
class Task;
class DataSource;

enum class PluginKind {
  kImageEncoder,
  kTextEncoder,
  kFusionEncoder,
  kQuantizer,
  kObjective,
  kTask,
  kDataSource
};

// "image encoder", "quantizer", ...
absl::string_view PluginKindName(PluginKind kind);

// The kind of plugin that implements interface T.
template <class T>
struct KindOf;
template <>
struct KindOf<ImageEncoder> {
  static constexpr PluginKind value = PluginKind::kImageEncoder;
};
template <>
struct KindOf<TextEncoder> {
  static constexpr PluginKind value = PluginKind::kTextEncoder;
};
template <>
struct KindOf<FusionEncoder> {
  static constexpr PluginKind value = PluginKind::kFusionEncoder;
};
template <>
struct KindOf<Quantizer> {
  static constexpr PluginKind value = PluginKind::kQuantizer;
};
template <>
struct KindOf<Objective> {
  static constexpr PluginKind value = PluginKind::kObjective;
};
template <>
struct KindOf<Task> {
  static constexpr PluginKind value = PluginKind::kTask;
};
template <>
struct KindOf<DataSource> {
  static constexpr PluginKind value = PluginKind::kDataSource;
};

struct PluginType {
  PluginKind kind;
  const google::protobuf::Descriptor* config = nullptr;
  const google::protobuf::Message* prototype = nullptr;
  std::string file;  // Where it is registered.
  std::function<absl::Status(const google::protobuf::Message&)> validate;
  std::function<Contract(const std::string& instance,
                         const google::protobuf::Message&, const ContractBook&)>
      contract;
  // The pointee is the interface of `kind`; use Registry::Make<T>.
  std::function<absl::StatusOr<std::shared_ptr<void>>(
      const google::protobuf::Message&, const PluginContext&)>
      make;

  const std::string& name() const { return config->full_name(); }
  // The config's (semvq.plugin_doc) option; empty when it has none.
  std::string doc() const;
};

class Registry {
 public:
  static Registry& Global();

  // Aborts and names both files when the type is already registered.
  void Add(PluginType type);
  // By the config's full name; null when it is not linked in.
  const PluginType* Find(absl::string_view full_name) const;
  // All types, ordered by kind and then by name.
  std::vector<const PluginType*> All() const;
  std::vector<const PluginType*> OfKind(PluginKind kind) const;

  // Builds the plugin that `config` (any registered config message) describes.
  // NotFound when its type is not linked in, InvalidArgument when it is of
  // another kind.
  template <class T>
  absl::StatusOr<std::shared_ptr<T>> Make(
      const google::protobuf::Message& config,
      const PluginContext& context) const {
    absl::StatusOr<std::shared_ptr<void>> made =
        MakeErased(KindOf<T>::value, config, context);
    if (!made.ok()) return made.status();
    return std::static_pointer_cast<T>(*std::move(made));
  }

 private:
  absl::StatusOr<std::shared_ptr<void>> MakeErased(
      PluginKind kind, const google::protobuf::Message& config,
      const PluginContext& context) const;
  std::vector<PluginType> types_;
};

namespace internal {

template <class T, class Config>
bool RegisterPlugin(const char* file,
                    absl::StatusOr<std::shared_ptr<T>> (*make)(
                        const Config&, const PluginContext&),
                    absl::Status (*validate)(const Config&),
                    Contract (*contract)(const std::string&, const Config&,
                                         const ContractBook&)) {
  PluginType type;
  type.kind = KindOf<T>::value;
  type.config = Config::descriptor();
  type.prototype = &Config::default_instance();
  type.file = file;
  type.validate = [validate](const google::protobuf::Message& m) {
    return validate(static_cast<const Config&>(m));
  };
  type.contract = [contract](const std::string& instance,
                             const google::protobuf::Message& m,
                             const ContractBook& book) {
    return contract(instance, static_cast<const Config&>(m), book);
  };
  type.make = [make](const google::protobuf::Message& m,
                     const PluginContext& context)
      -> absl::StatusOr<std::shared_ptr<void>> {
    absl::StatusOr<std::shared_ptr<T>> made =
        make(static_cast<const Config&>(m), context);
    if (!made.ok()) return made.status();
    return std::shared_ptr<void>(*std::move(made));
  };
  Registry::Global().Add(std::move(type));
  return true;
}

}  // namespace internal

#define SEMVQ_REGISTER(Interface, Config, make, validate, contract)        \
  static const bool semvq_registered_##Config =                            \
      ::semvq::internal::RegisterPlugin<Interface, Config>(__FILE__, make, \
                                                           validate, contract)

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_REGISTRY_H_
