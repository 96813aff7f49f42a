// The data source of SNLI-VE's official .jsonl files (see config.proto for the
// format).
#ifndef SEMVQ_DATA_SOURCES_SNLI_VE_JSONL_SNLI_VE_JSONL_H_
#define SEMVQ_DATA_SOURCES_SNLI_VE_JSONL_SNLI_VE_JSONL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/snli_ve_jsonl/config.pb.h"

namespace semvq {

absl::Status ValidateSnliVeJsonl(const SnliVeJsonlConfig& config);

Contract SnliVeJsonlContract(const std::string& instance,
                             const SnliVeJsonlConfig& config,
                             const ContractBook& book);

// Reads all files. NotFound when one is missing; InvalidArgument when one is in
// another format (the message names the one it looks like). A line that cannot
// be used stays in the list, and Read() of it returns the reason.
absl::StatusOr<std::shared_ptr<DataSource>> MakeSnliVeJsonl(
    const SnliVeJsonlConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_SNLI_VE_JSONL_SNLI_VE_JSONL_H_
