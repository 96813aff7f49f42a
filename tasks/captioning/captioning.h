#ifndef SEMVQ_TASKS_CAPTIONING_CAPTIONING_H_
#define SEMVQ_TASKS_CAPTIONING_CAPTIONING_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/registry.h"
#include "tasks/captioning/config.pb.h"

namespace semvq {

// std::vector<std::string> [B], a caption of each image: captioning.
inline constexpr char kCaptions[] = "captions";

absl::Status ValidateCaptioning(const CaptioningConfig& config);
Contract CaptioningContract(const std::string& instance,
                            const CaptioningConfig& config,
                            const ContractBook& book);
absl::StatusOr<std::shared_ptr<Task>> MakeCaptioning(
    const CaptioningConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CAPTIONING_CAPTIONING_H_
