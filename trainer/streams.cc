#include "trainer/streams.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/plugin/registry.h"

namespace semvq {
namespace {

// A recipe's numbers hold for its data: what was lost on the way must be seen.
void WarnOfSize(const DataStream& stream, int64_t size) {
  const int64_t expected = stream.expected_samples();
  if (expected <= 0 || std::llabs(size - expected) * 100 <= expected) return;
  std::fprintf(stderr,
               "data stream \"%s\": %lld samples, but expected_samples is "
               "%lld\n",
               stream.name().c_str(), static_cast<long long>(size),
               static_cast<long long>(expected));
}

}  // namespace

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
  WarnOfSize(**stream, (*source)->size());
  return sources_[key] = *source;
}

}  // namespace semvq
