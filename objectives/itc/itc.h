// Image-text contrast [CLIP; ALBEF, Section 3.2]. See config.proto.
#ifndef SEMVQ_OBJECTIVES_ITC_ITC_H_
#define SEMVQ_OBJECTIVES_ITC_ITC_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class ItcConfig;
class Objective;

absl::Status ValidateItc(const ItcConfig& config);
Contract ItcContract(const std::string& instance, const ItcConfig& config,
                     const ContractBook& book);

// Views: image_embedding (ImageKey, any variant and slot), text_embedding
// (TextKey), similarity (any variant, no pairing; slot as for images), scaled
// by the temperature of the variant's own parameters.
// Loss `contrast`; metrics `i2t_top1`, `t2i_top1` (share of the batch's rows
// whose best in-batch candidate is a positive) and `temperature`.
// Parameters: image_proj.*, text_proj.*, temperature []. Buffers, with a queue:
// image_queue, text_queue [Q, dim], image_queue_ids, text_queue_ids [Q] (-1:
// not yet filled), image_queue_next, text_queue_next [1].
absl::StatusOr<std::shared_ptr<Objective>> MakeItc(
    const ItcConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_ITC_ITC_H_
