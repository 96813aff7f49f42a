// The data source of VQA v2's official files (see config.proto for the format).
#ifndef SEMVQ_DATA_SOURCES_VQA_V2_VQA_V2_H_
#define SEMVQ_DATA_SOURCES_VQA_V2_VQA_V2_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/vqa_v2/config.pb.h"

namespace semvq {

absl::Status ValidateVqaV2(const VqaV2Config& config);

Contract VqaV2Contract(const std::string& instance, const VqaV2Config& config,
                       const ContractBook& book);

// Reads all files. NotFound when one is missing; InvalidArgument when one is in
// another format (the message names the one it looks like), a question_id
// occurs twice, or an annotation has no question. A question that cannot be
// used stays in the list, and Read() of it returns the reason.
absl::StatusOr<std::shared_ptr<DataSource>> MakeVqaV2(
    const VqaV2Config& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_VQA_V2_VQA_V2_H_
