// Quantizers in programs of their own: link //quantizers:lib, which holds all
// of this tree, without the trainer.
#ifndef SEMVQ_QUANTIZERS_MAKE_QUANTIZER_H_
#define SEMVQ_QUANTIZERS_MAKE_QUANTIZER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/quantizer.h"
#include "google/protobuf/any.pb.h"

namespace semvq {

// The quantizer of a config in the experiment's language,
//   "[type.googleapis.com/semvq.FsqConfig] { levels: [8, 5, 5, 5] }",
// for features of `dim` dimensions, in float32 on the CPU; move it with
// to(device) or to(dtype). Every random draw of its construction is keyed by
// `seed`; those of Quantize and AfterStep by their context's. InvalidArgument
// with everything that is wrong with the text, each with its line.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeQuantizer(
    const std::string& config, int64_t dim, uint64_t seed = 1);

// The same of a config that is read already.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeQuantizer(
    const google::protobuf::Any& config, int64_t dim, uint64_t seed = 1);

// Fills the quantizer's parameters and buffers from a .safetensors file, such
// as a checkpoint of a run, where they stand under `prefix`:
// "codebook.quantizer." for the experiment's quantizer "codebook". NotFound
// names every tensor that is missing, InvalidArgument every one of another
// shape; then nothing is changed.
absl::Status LoadQuantizer(const std::string& path, const std::string& prefix,
                           Quantizer& quantizer);

}  // namespace semvq

#endif  // SEMVQ_QUANTIZERS_MAKE_QUANTIZER_H_
