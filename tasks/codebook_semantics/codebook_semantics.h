#ifndef SEMVQ_TASKS_CODEBOOK_SEMANTICS_CODEBOOK_SEMANTICS_H_
#define SEMVQ_TASKS_CODEBOOK_SEMANTICS_CODEBOOK_SEMANTICS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/codebook_semantics/config.pb.h"

namespace semvq {

absl::Status ValidateCodebookSemantics(const CodebookSemanticsConfig& config);
Contract CodebookSemanticsContract(const std::string& instance,
                                   const CodebookSemanticsConfig& config,
                                   const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeCodebookSemantics(
    const CodebookSemanticsConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CODEBOOK_SEMANTICS_CODEBOOK_SEMANTICS_H_
