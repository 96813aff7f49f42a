// The vision transformer, an image encoder. See config.proto.
#ifndef SEMVQ_ENCODERS_VIT_VIT_H_
#define SEMVQ_ENCODERS_VIT_VIT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "encoders/vit/config.pb.h"

namespace semvq {

class ImageEncoder;

// Every error, one a line.
absl::Status ValidateVit(const VitConfig& config);

// Provides "tokens" of `dim`: [CLS], then the patches row by row. Reads
// "image".
Contract VitContract(const std::string& instance, const VitConfig& config,
                     const ContractBook& book);

// InvalidArgument when the trained images are not whole patches. The encoder
// throws c10::Error for images that are not, and for a mask of another shape.
absl::StatusOr<std::shared_ptr<ImageEncoder>> MakeVit(
    const VitConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_ENCODERS_VIT_VIT_H_
