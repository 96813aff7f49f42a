// The data source of COCO's captions files (see config.proto for the format).
#ifndef SEMVQ_DATA_SOURCES_COCO_CAPTIONS_COCO_CAPTIONS_H_
#define SEMVQ_DATA_SOURCES_COCO_CAPTIONS_COCO_CAPTIONS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/coco_captions/config.pb.h"

namespace semvq {

absl::Status ValidateCocoCaptions(const CocoCaptionsConfig& config);

Contract CocoCaptionsContract(const std::string& instance,
                              const CocoCaptionsConfig& config,
                              const ContractBook& book);

// Reads all files. NotFound when one is missing; InvalidArgument when one is in
// another format (the message names the one it looks like), an id occurs twice,
// or a caption has no image. An image without captions stays in the list, and
// Read() of it returns the reason.
absl::StatusOr<std::shared_ptr<DataSource>> MakeCocoCaptions(
    const CocoCaptionsConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_COCO_CAPTIONS_COCO_CAPTIONS_H_
