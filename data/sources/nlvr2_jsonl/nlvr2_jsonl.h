// The data source of NLVR2's official .jsonl files (see config.proto for the
// format).
#ifndef SEMVQ_DATA_SOURCES_NLVR2_JSONL_NLVR2_JSONL_H_
#define SEMVQ_DATA_SOURCES_NLVR2_JSONL_NLVR2_JSONL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/nlvr2_jsonl/config.pb.h"

namespace semvq {

absl::Status ValidateNlvr2Jsonl(const Nlvr2JsonlConfig& config);

Contract Nlvr2JsonlContract(const std::string& instance,
                            const Nlvr2JsonlConfig& config,
                            const ContractBook& book);

// Reads all files. NotFound when one is missing; InvalidArgument when one is in
// another format (the message names the one it looks like) or an identifier
// occurs twice. A line that cannot be used stays in the list, and Read() of it
// returns the reason.
absl::StatusOr<std::shared_ptr<DataSource>> MakeNlvr2Jsonl(
    const Nlvr2JsonlConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_NLVR2_JSONL_NLVR2_JSONL_H_
