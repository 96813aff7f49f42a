// Decoding of quantised tokens to pixels, conditioned on the caption [VQ-VAE;
// DALL-E, Section 2]. See config.proto.
#ifndef SEMVQ_OBJECTIVES_RECONSTRUCTION_RECONSTRUCTION_H_
#define SEMVQ_OBJECTIVES_RECONSTRUCTION_RECONSTRUCTION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class ReconstructionConfig;
class Objective;

absl::Status ValidateReconstruction(const ReconstructionConfig& config);
Contract ReconstructionContract(const std::string& instance,
                                const ReconstructionConfig& config,
                                const ContractBook& book);

// Views, both ImageKey with any variant and slot:
//   reconstruction: [B, 3, H, W], in the normalised pixels of Batch::images.
//     With normalize_patches every patch gets the mean and deviation of the
//     true one [as MAE shows its results].
//   reconstruction_patches: [B, N, 3 * patch * patch], what the decoder says;
//     a patch is ordered channel, row, column.
// Loss `pixels`; metric `explained_variance`: 1 - MSE / MSE of the batch's
// mean patch; 0 is what a constant reaches.
// Parameters: decoder.*, of core/nn/token_decoder.h.
absl::StatusOr<std::shared_ptr<Objective>> MakeReconstruction(
    const ReconstructionConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_RECONSTRUCTION_RECONSTRUCTION_H_
