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
  struct Source {
    std::string path;
    std::string what;  // "text.*, BERT as ... names it"; empty: all of it.
    int64_t loaded = 0;
    int64_t loaded_values = 0;
    std::vector<std::string> resized;  // Names, and shapes before and after.
  };
  std::vector<Source> sources;
  int64_t loaded = 0;                   // Tensors, of all sources.
  int64_t loaded_values = 0;            // Numbers in them.
  int64_t all = 0;                      // Tensors of the model,
  int64_t all_values = 0;               // and numbers in them.
  std::vector<std::string> missing;     // Allowed ones that keep their start.
  std::vector<std::string> untouched;   // Of instances without any source.
  std::vector<std::string> unexpected;  // Allowed ones of the files, unused.
};
std::string ToString(const InitReport& report);

// `config` with its paths and key maps as they are to be opened: relative paths
// start at `working_folder`, key maps are looked up there and in
// `config_folders`. NotFound without such a key map.
absl::StatusOr<InitFrom> ResolveInitFrom(
    const InitFrom& config, const std::string& working_folder,
    const std::vector<std::string>& config_folders);

// Copies parameters and buffers into `module`: those under a prefix of
// `config.weights` from there, by the naming's key map; the others from `path`
// (a checkpoint folder, its model section, or a .safetensors file; empty: none)
// by `config.maps`. Shapes must agree but for position embeddings; types must,
// but for floating-point ones. InvalidArgument lists every missing, unexpected
// and misshaped tensor that is not allowed; nothing is copied then. `config` is
// resolved.
absl::StatusOr<InitReport> InitParameters(const InitFrom& config,
                                          const std::string& path,
                                          torch::nn::Module& module);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_INIT_FROM_H_
