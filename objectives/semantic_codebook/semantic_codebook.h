// The codebook objective: VQ-VAE's bound [van den Oord et al. 2017] extended by
// language, the reading of Guo et al. 2022 that docs/method.md derives. See
// config.proto; the arithmetic is core/objective/bound.h.
#ifndef SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_SEMANTIC_CODEBOOK_H_
#define SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_SEMANTIC_CODEBOOK_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class SemanticCodebookConfig;
class Objective;

absl::Status ValidateSemanticCodebook(const SemanticCodebookConfig& config);
Contract SemanticCodebookContract(const std::string& instance,
                                  const SemanticCodebookConfig& config,
                                  const ContractBook& book);

// Views, both ImageKey with any variant and slot:
//   decoded_patches: [B, N, 3 * patch * patch] or [B, N, dimension of the
//     target encoder], the mean of p(x | z, y).
//   reconstruction (PIXELS only): the same as an image [B, 3, H, W], in the
//     normalised pixels of Batch::images.
// Losses and metrics: see config.proto. Codes to hide are drawn by (seed,
// "<instance>/codes" or "<instance>/words", sample number, position).
// Parameters: decoder.* (core/nn/token_decoder.h), prior.* (prior.h).
// FailedPrecondition when a prior with words has no tokenizer.
absl::StatusOr<std::shared_ptr<Objective>> MakeSemanticCodebook(
    const SemanticCodebookConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_SEMANTIC_CODEBOOK_SEMANTIC_CODEBOOK_H_
