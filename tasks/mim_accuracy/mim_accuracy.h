#ifndef SEMVQ_TASKS_MIM_ACCURACY_MIM_ACCURACY_H_
#define SEMVQ_TASKS_MIM_ACCURACY_MIM_ACCURACY_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/mim_accuracy/config.pb.h"

namespace semvq {

absl::Status ValidateMimAccuracy(const MimAccuracyConfig& config);
Contract MimAccuracyContract(const std::string& instance,
                             const MimAccuracyConfig& config,
                             const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeMimAccuracy(
    const MimAccuracyConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_MIM_ACCURACY_MIM_ACCURACY_H_
