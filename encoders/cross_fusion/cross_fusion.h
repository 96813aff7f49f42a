// The cross-attention fusion encoder. See config.proto.
#ifndef SEMVQ_ENCODERS_CROSS_FUSION_CROSS_FUSION_H_
#define SEMVQ_ENCODERS_CROSS_FUSION_CROSS_FUSION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "encoders/cross_fusion/config.pb.h"

namespace semvq {

class FusionEncoder;

// Every error, one a line.
absl::Status ValidateCrossFusion(const CrossFusionConfig& config);

// Needs "tokens" of the text (of `dim`, when that is set) and of the visual
// instance; provides "fused" of the text's dimension and every layer's
// "cross_attention/<layer>".
Contract CrossFusionContract(const std::string& instance,
                             const CrossFusionConfig& config,
                             const ContractBook& book);

// InvalidArgument without a contract book that knows both instances, or when
// the heads do not divide the width.
absl::StatusOr<std::shared_ptr<FusionEncoder>> MakeCrossFusion(
    const CrossFusionConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_ENCODERS_CROSS_FUSION_CROSS_FUSION_H_
