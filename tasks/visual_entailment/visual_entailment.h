#ifndef SEMVQ_TASKS_VISUAL_ENTAILMENT_VISUAL_ENTAILMENT_H_
#define SEMVQ_TASKS_VISUAL_ENTAILMENT_VISUAL_ENTAILMENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/visual_entailment/config.pb.h"

namespace semvq {

absl::Status ValidateVisualEntailment(const VisualEntailmentConfig& config);
Contract VisualEntailmentContract(const std::string& instance,
                                  const VisualEntailmentConfig& config,
                                  const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeVisualEntailment(
    const VisualEntailmentConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_VISUAL_ENTAILMENT_VISUAL_ENTAILMENT_H_
