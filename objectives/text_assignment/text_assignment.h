// Which of two images a text describes [ALBEF, Section 3.5]. See config.proto.
#ifndef SEMVQ_OBJECTIVES_TEXT_ASSIGNMENT_TEXT_ASSIGNMENT_H_
#define SEMVQ_OBJECTIVES_TEXT_ASSIGNMENT_TEXT_ASSIGNMENT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class Objective;
class TextAssignmentConfig;

// at::Tensor [T, 3]: the text describes the first image, the second, neither.
inline constexpr char kAssignmentLogits[] = "assignment_logits";

absl::Status ValidateTextAssignment(const TextAssignmentConfig& config);
Contract TextAssignmentContract(const std::string& instance,
                                const TextAssignmentConfig& config,
                                const ContractBook& book);
// Views:
//   pairing (key {instance, "pairing"}, any teacher variant): T pairs of a text
//     with two images, Pairing::slots. Drawn by (seed, "text assignment",
//     sample numbers of text and images).
//   assignment (same key): the pairing with its labels; for itself.
//   assignment_logits (FusedKey, any variant).
// Loss `assignment`; metric `accuracy`. Parameters: head.{weight,bias}.
absl::StatusOr<std::shared_ptr<Objective>> MakeTextAssignment(
    const TextAssignmentConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_TEXT_ASSIGNMENT_TEXT_ASSIGNMENT_H_
