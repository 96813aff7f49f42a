#ifndef SEMVQ_TASKS_GROUNDING_GROUNDING_H_
#define SEMVQ_TASKS_GROUNDING_GROUNDING_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/grounding/config.pb.h"

namespace semvq {

absl::Status ValidateGrounding(const GroundingConfig& config);
// Needs the map of the layer, as a view of the fusion encoder: a layer that it
// has not is an error before anything is built.
Contract GroundingContract(const std::string& instance,
                           const GroundingConfig& config,
                           const ContractBook& book);
// NotFound without the file of boxes, InvalidArgument where it is malformed.
absl::StatusOr<std::shared_ptr<Task>> MakeGrounding(
    const GroundingConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_GROUNDING_GROUNDING_H_
