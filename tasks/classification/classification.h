#ifndef SEMVQ_TASKS_CLASSIFICATION_CLASSIFICATION_H_
#define SEMVQ_TASKS_CLASSIFICATION_CLASSIFICATION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/classification/config.pb.h"

namespace semvq {

absl::Status ValidateClassification(const ClassificationConfig& config);
Contract ClassificationContract(const std::string& instance,
                                const ClassificationConfig& config,
                                const ContractBook& book);
// NotFound without the file of classes; InvalidArgument for fewer than two
// classes, one that comes twice or has no words, and codes that are too many to
// be features of their own.
absl::StatusOr<std::shared_ptr<Task>> MakeClassification(
    const ClassificationConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CLASSIFICATION_CLASSIFICATION_H_
