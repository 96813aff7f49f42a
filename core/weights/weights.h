// Reading and writing one instance's parameters as another project's weights.
#ifndef SEMVQ_CORE_WEIGHTS_WEIGHTS_H_
#define SEMVQ_CORE_WEIGHTS_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/checkpoint/safetensors.h"
#include "core/weights/key_map.h"
#include "protos/experiment.pb.h"

namespace semvq {

// What an import would do. Nothing is copied yet.
struct ImportPlan {
  struct Copy {
    std::string name;   // Ours, in full.
    at::Tensor target;  // The model's.
    at::Tensor value;   // Of the target's shape; it may view the file.
  };
  std::vector<Copy> copies;
  std::set<std::string> used;          // Names in the file that were read...
  std::set<std::string> unused;        // ...and that the naming says are not.
  std::vector<std::string> missing;    // Our names that the file lacks,
  std::vector<std::string> ours_only;  // and those that it may lack.
  std::vector<std::string> resized;    // "image.pos_embed [1,197,768] to ..."
  std::vector<std::string> misshaped;  // Ours and theirs, with both shapes.
  // When nothing was found: the value of import.from with which something
  // would have been, if there is one.
  std::optional<std::string> hint;
};

// Matches the tensors of `model` whose names begin with import.to() against
// `file`. Floating-point types convert into each other; any other difference of
// type is a misshapen tensor. InvalidArgument when no tensor of the model
// begins so, DataLoss when the file cannot be read.
absl::StatusOr<ImportPlan> PlanImport(const WeightsImport& import,
                                      const KeyNames& names,
                                      const SafetensorsFile& file,
                                      const NamedTensors& model);

struct Exported {
  NamedTensors tensors;                // Under their names.
  std::vector<std::string> ours_only;  // Left out: their models lack it.
  std::vector<std::string> unknown;    // The naming has no rule for it.
};

// The inverse: tensors of `model` whose names begin with part.to(), under the
// names that begin with part.from(). A tensor that is several of theirs is cut
// into equal pieces. InvalidArgument when no name begins so, or a tensor cannot
// be cut.
absl::StatusOr<Exported> ExportWeights(const WeightsImport& part,
                                       const KeyNames& names,
                                       const NamedTensors& model);

}  // namespace semvq

#endif  // SEMVQ_CORE_WEIGHTS_WEIGHTS_H_
