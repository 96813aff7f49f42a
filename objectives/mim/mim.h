// Masked image modelling on a codebook's codes [BEiT; BEiT v2; SOHO, Section
// 3.3]. See config.proto.
#ifndef SEMVQ_OBJECTIVES_MIM_MIM_H_
#define SEMVQ_OBJECTIVES_MIM_MIM_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class MimConfig;
class Objective;

absl::Status ValidateMim(const MimConfig& config);
Contract MimContract(const std::string& instance, const MimConfig& config,
                     const ContractBook& book);

// Views:
//   image_mask (ImageKey without variant, any slot): M = round(mask_ratio * N)
//     patches, at least 1, all valid. Drawn by (seed, "mim", sample number,
//     slot).
//   mim_logits (ImageKey; the own mask, whatever the variant's image_mask
//     says): one [B, M, K_g] per code group.
// Loss `code`, the mean over groups and hidden patches. Metrics, each the mean
// over groups: `top1`; `majority`, the share of the most frequent target in the
// batch, which top1 must beat; `target_entropy` of the batch's targets, in
// nats.
// Parameters: heads.<group>.*, with FUSED also fusion.*.
absl::StatusOr<std::shared_ptr<Objective>> MakeMim(
    const MimConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_MIM_MIM_H_
