// The residual network, an image encoder. See config.proto.
#ifndef SEMVQ_ENCODERS_RESNET_RESNET_H_
#define SEMVQ_ENCODERS_RESNET_RESNET_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "encoders/resnet/config.pb.h"

namespace semvq {

class ImageEncoder;

// Every error, one a line.
absl::Status ValidateResnet(const ResnetConfig& config);

// Side in pixels of the square that a token stands for.
int64_t ResnetStride(const ResnetConfig& config);

// Width of the tokens.
int64_t ResnetDim(const ResnetConfig& config);

// Provides "tokens" of ResnetDim(): the grid row by row, no [CLS]. Reads
// "image".
Contract ResnetContract(const std::string& instance, const ResnetConfig& config,
                        const ContractBook& book);

// InvalidArgument when the trained images are not whole tokens. The encoder
// throws c10::Error for images that are not, and for a mask of another shape.
//
// The pixels of a masked patch are replaced by a learned patch before the first
// convolution, so that nothing of it is seen, and its token still tells what
// its neighbours suggest. Passes over masked images do not enter the running
// averages: those are of images as evaluation sees them.
//
// Parameters and buffers are named as in torchvision and timm (conv1.weight,
// bn1.running_mean, layer1.0.downsample.0.weight, ...), without
// num_batches_tracked; ours are mask_patch, proj.{weight,bias}, pos_embed and
// norm.{weight,bias}.
absl::StatusOr<std::shared_ptr<ImageEncoder>> MakeResnet(
    const ResnetConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_ENCODERS_RESNET_RESNET_H_
