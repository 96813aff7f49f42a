#ifndef SEMVQ_TASKS_VQA_VQA_H_
#define SEMVQ_TASKS_VQA_VQA_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/vqa/config.pb.h"

namespace semvq {

// at::Tensor [A, L, V], logits of the tokens of every answer of the batch's
// questions, in the records' order: a vqa task with a decoder.
inline constexpr char kAnswerTokenLogits[] = "answer_token_logits";

absl::Status ValidateVqa(const VqaConfig& config);
Contract VqaContract(const std::string& instance, const VqaConfig& config,
                     const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeVqa(const VqaConfig& config,
                                              const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_VQA_VQA_H_
