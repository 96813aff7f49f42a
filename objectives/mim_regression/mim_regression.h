// Masked image modelling by regression [MAE, He et al. 2022; SimMIM, Xie et al.
// 2022; data2vec, Baevski et al. 2022]. See config.proto.
#ifndef SEMVQ_OBJECTIVES_MIM_REGRESSION_MIM_REGRESSION_H_
#define SEMVQ_OBJECTIVES_MIM_REGRESSION_MIM_REGRESSION_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"

namespace semvq {

class MimRegressionConfig;
class Objective;

absl::Status ValidateMimRegression(const MimRegressionConfig& config);
Contract MimRegressionContract(const std::string& instance,
                               const MimRegressionConfig& config,
                               const ContractBook& book);

// Views:
//   image_mask (ImageKey without variant, any slot), unless mask_from names
//     another: the mask that the objective mim draws of the same ratio and
//     strategy.
//   mim_prediction (ImageKey; the own mask, whatever the variant's image_mask
//     says): at::Tensor [B, M, D], D numbers of a patch or a token.
// Loss `regression`. Metrics: `explained_variance`, 1 - squared error / that of
// the mean target, which is above 0 when more than a constant is learned (not
// with COSINE); `cosine` of prediction and target.
// Parameters: head.*, with decoder_layers also decoder.*.
absl::StatusOr<std::shared_ptr<Objective>> MakeMimRegression(
    const MimRegressionConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_OBJECTIVES_MIM_REGRESSION_MIM_REGRESSION_H_
