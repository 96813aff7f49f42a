// Masked language modelling on image and text [BERT; ALBEF, Section 3.2]. See
// config.proto.
#ifndef SEMVQ_OBJECTIVES_MLM_MLM_H_
#define SEMVQ_OBJECTIVES_MLM_MLM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class MlmConfig;
class Objective;

absl::Status ValidateMlm(const MlmConfig& config);
Contract MlmContract(const std::string& instance, const MlmConfig& config,
                     const ContractBook& book);

// Views:
//   text_mask (TextKey without variant): capacity M = ceil(p * L) a text. Drawn
//     by (seed, "mlm", sample number, index of the text in its image).
//   mlm_logits (FusedKey; the own mask, whatever the variant's text_mask says):
//     [T, M, V], at positions that are not valid those of position 0.
// Loss `mask` (mean over the valid positions); metric `top1`.
// Parameters, BERT's prediction head: dense.*, norm.*, decoder.*.
// FailedPrecondition when the experiment has no text.
absl::StatusOr<std::shared_ptr<Objective>> MakeMlm(
    const MlmConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_MLM_MLM_H_
