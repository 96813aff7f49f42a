#ifndef SEMVQ_TASKS_RETRIEVAL_RETRIEVAL_H_
#define SEMVQ_TASKS_RETRIEVAL_RETRIEVAL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/retrieval/config.pb.h"

namespace semvq {

absl::Status ValidateRetrieval(const RetrievalConfig& config);
Contract RetrievalContract(const std::string& instance,
                           const RetrievalConfig& config,
                           const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeRetrieval(
    const RetrievalConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_RETRIEVAL_RETRIEVAL_H_
