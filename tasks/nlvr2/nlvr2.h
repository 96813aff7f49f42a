#ifndef SEMVQ_TASKS_NLVR2_NLVR2_H_
#define SEMVQ_TASKS_NLVR2_NLVR2_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/nlvr2/config.pb.h"

namespace semvq {

absl::Status ValidateNlvr2(const Nlvr2Config& config);
Contract Nlvr2Contract(const std::string& instance, const Nlvr2Config& config,
                       const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeNlvr2(const Nlvr2Config& config,
                                                const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_NLVR2_NLVR2_H_
