// Starting parameters from another model's.
#ifndef SEMVQ_TRAINER_INIT_FROM_H_
#define SEMVQ_TRAINER_INIT_FROM_H_

#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "protos/experiment.pb.h"

namespace semvq {

// What was done, for the log: nothing is loaded or left out silently.
struct InitReport {
  std::string source;
  int64_t loaded = 0;                   // Tensors.
  int64_t loaded_values = 0;            // Numbers in them.
  std::vector<std::string> missing;     // Allowed ones that keep their start.
  std::vector<std::string> unexpected;  // Allowed ones of the file, unused.
};
std::string ToString(const InitReport& report);

// Copies parameters and buffers from `path` (a checkpoint folder, its model
// section, or a .safetensors file) into `module`, by `config`'s maps. Shapes
// must agree. InvalidArgument lists every missing, unexpected and misshaped
// tensor that is not allowed; nothing is copied then.
absl::StatusOr<InitReport> InitParameters(const InitFrom& config,
                                          const std::string& path,
                                          torch::nn::Module& module);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_INIT_FROM_H_
