#ifndef SEMVQ_CORE_CHECKPOINT_CHECKPOINT_H_
#define SEMVQ_CORE_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/checkpoint/safetensors.h"

// A checkpoint is a folder `<root>/step_00000123` of one safetensors file per
// section and a manifest (protos/manifest.proto). It appears under its name
// complete and on disk, or not at all: whatever dies on the way leaves a
// temporary folder, which readers ignore and the next save removes.
namespace semvq {

// Raised when the layout changes; other versions are refused.
inline constexpr int kCheckpointFormatVersion = 1;

inline constexpr char kManifestName[] = "manifest.textproto";

struct CheckpointContents {
  int64_t step = 0;  // optimizer steps done, from 0
  std::string semvq_version;
  std::string config_text;  // the resolved experiment
  std::string config_hash;
  // Tensors by section: "model", "optimizer", "teacher", "state"... A section
  // is a file name: letters, digits, '_' and '-'.
  std::map<std::string, NamedTensors> sections;
  // Other state by its owner's key; values may be binary.
  std::map<std::string, std::string> state;
  std::map<std::string, double> metrics;
};

struct RetentionPolicy {
  // The newest so many stay (at least 1); 0 keeps all.
  int64_t keep_last = 0;
  // Beside them stays the one with the best value of this metric (the earlier
  // of equals; NaN never is); empty: none.
  std::string best_metric;
  bool best_is_max = true;
};

// Saves to `root`, making it if needed, and then removes what the policy does
// not keep. Returns the new folder. A checkpoint of the same step is replaced.
// On any error, a full disk (ResourceExhausted) included, earlier checkpoints
// are untouched and nothing is left behind. FailedPrecondition while another
// process saves to the same root.
absl::StatusOr<std::string> SaveCheckpoint(const std::string& root,
                                           const CheckpointContents& contents,
                                           const RetentionPolicy& retention);

// One checkpoint folder as a scan found it.
struct CheckpointInfo {
  std::string path;
  int64_t step = 0;
  std::map<std::string, double> metrics;
  // OK if the manifest is intact and all files have their sizes (hashes are
  // checked on load). DataLoss if not; FailedPrecondition for another format.
  absl::Status status;
};

// All `step_*` folders, by step ascending. Empty when `root` is not there.
absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(
    const std::string& root);

// The newest complete checkpoint. Incomplete ones that are newer are passed
// over and, if `skipped` is not null, described there. NotFound without any;
// FailedPrecondition if the newest is of another format.
absl::StatusOr<std::string> FindLatestCheckpoint(
    const std::string& root, std::vector<std::string>* skipped = nullptr);

// The complete checkpoint that `policy.best_metric` prefers; NotFound if none
// has that metric.
absl::StatusOr<std::string> FindBestCheckpoint(const std::string& root,
                                               const RetentionPolicy& policy);

// Loads all sections, or those named. Sizes and SHA-256 are checked first: a
// file that is missing, truncated or altered is DataLoss, and the message names
// it and the nearest earlier checkpoint that is intact. Another format version
// is FailedPrecondition. A named section that is not there is NotFound.
absl::StatusOr<CheckpointContents> LoadCheckpoint(
    const std::string& folder, absl::Span<const std::string> sections = {});

// A model's tensors by name, wherever they are: a checkpoint folder, a folder
// of checkpoints (its newest), or a .safetensors file, which is memory-mapped.
absl::StatusOr<std::map<std::string, at::Tensor>> LoadModelTensors(
    const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_CORE_CHECKPOINT_CHECKPOINT_H_
