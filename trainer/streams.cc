#include "trainer/streams.h"

#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/plugin/registry.h"

namespace semvq {

absl::StatusOr<const DataStream*> Streams::Find(const Experiment& experiment,
                                                const std::string& name) {
  for (const DataStream& stream : experiment.data().streams()) {
    if (stream.name() == name) return &stream;
  }
  return absl::NotFoundError(absl::StrCat("no data stream \"", name, "\""));
}

absl::StatusOr<std::shared_ptr<const DataSource>> Streams::Open(
    const Experiment& experiment, const std::string& name) {
  absl::StatusOr<const DataStream*> stream = Find(experiment, name);
  if (!stream.ok()) return stream.status();
  const google::protobuf::Any& any = (*stream)->source();
  const std::string key = absl::StrCat(any.type_url(), "\n", any.value());
  auto found = sources_.find(key);
  if (found != sources_.end()) return found->second;

  auto config = UnpackConfig(any);
  if (!config.ok()) return config.status();
  PluginContext context;
  context.instance = name;
  context.seed = experiment.seed();
  auto source = Registry::Global().Make<DataSource>(**config, context);
  if (!source.ok()) {
    return absl::Status(source.status().code(),
                        absl::StrCat("data stream \"", name,
                                     "\": ", source.status().message()));
  }
  return sources_[key] = *source;
}

}  // namespace semvq
