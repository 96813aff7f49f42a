// Image-text matching with hard negatives [ALBEF, Section 3.2]. See
// config.proto.
#ifndef SEMVQ_OBJECTIVES_ITM_ITM_H_
#define SEMVQ_OBJECTIVES_ITM_ITM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class ItmConfig;
class Objective;

absl::Status ValidateItm(const ItmConfig& config);
Contract ItmContract(const std::string& instance, const ItmConfig& config,
                     const ContractBook& book);

// Views:
//   pairing (key {instance, "pairing"}, any teacher variant): 2 T + B pairs:
//     T positives (every text with its image), T (every text with a negative
//     image), B (every image with a negative text). A negative that does not
//     exist, because all the batch is of one image id, is some positive pair:
//     the loss leaves it out. Drawn by (seed, "itm", sample numbers of both).
//   match_logits (FusedKey, any variant and pairing): [P, 2], class 1 = match.
// Loss `match`; metrics `accuracy` and `negative_accuracy`.
// Parameters: head.{weight,bias}.
absl::StatusOr<std::shared_ptr<Objective>> MakeItm(
    const ItmConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_ITM_ITM_H_
