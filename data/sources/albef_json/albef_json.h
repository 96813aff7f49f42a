// The data source of ALBEF-style JSON lists (see config.proto for the format).
#ifndef SEMVQ_DATA_SOURCES_ALBEF_JSON_ALBEF_JSON_H_
#define SEMVQ_DATA_SOURCES_ALBEF_JSON_ALBEF_JSON_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "data/source.h"
#include "data/sources/albef_json/config.pb.h"

namespace semvq {

absl::Status ValidateAlbefJson(const AlbefJsonConfig& config);

Contract AlbefJsonContract(const std::string& instance,
                           const AlbefJsonConfig& config,
                           const ContractBook& book);

// Reads all files. NotFound when one is missing (the message says what is
// wanted and how to get going without it), InvalidArgument when one is not a
// JSON list or is cut off. A record that cannot be used stays in the list, and
// Read() of it returns the reason. Image files are not touched here.
absl::StatusOr<std::shared_ptr<DataSource>> MakeAlbefJson(
    const AlbefJsonConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_ALBEF_JSON_ALBEF_JSON_H_
