// What an output folder holds, so that a second run can tell it is complete.
#ifndef SEMVQ_TOOLS_DATA_MANIFEST_H_
#define SEMVQ_TOOLS_DATA_MANIFEST_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/common.h"

namespace semvq::tools {

inline constexpr char kManifestFile[] = "manifest.json";
// Raise when the tool's output for the same input changes.
inline constexpr int kManifestFormat = 5;

struct Manifest {
  int format = kManifestFormat;
  std::vector<std::string> sources;             // sorted
  std::map<std::string, std::string> versions;  // input package -> version
  Counts counts;
  FileHashes files;
};

std::string ManifestJson(const Manifest& manifest);

// NotFound if the folder has none; InvalidArgument if it cannot be used.
absl::StatusOr<Manifest> ReadManifest(const std::string& folder);

// Hashes every file of the manifest; DataLoss names the first that is missing
// or altered and how many are.
absl::Status VerifyFiles(const std::string& folder, const Manifest& manifest);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_MANIFEST_H_
