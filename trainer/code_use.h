// How a quantizer's codes are used, for TensorBoard and the report.
#ifndef SEMVQ_TRAINER_CODE_USE_H_
#define SEMVQ_TRAINER_CODE_USE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/forward/types.h"
#include "protos/result.pb.h"

namespace semvq {

// One set of codes of a quantizer, on the host: float32 [K] each.
struct CodeVectors {
  std::string name;  // "codebook"; of its parts "codebook/level0".
  at::Tensor counts, age;
};

// Quantizer::CodeValues of the quantizer `name`. Waits for the device.
std::vector<CodeVectors> CodeVectorsOf(const std::string& name,
                                       const NamedTensors& values);

// How many codes lie in each of 0, 1, 2 to 3, 4 to 7, ... times or steps.
CodeUse Summarise(const CodeVectors& codes, int64_t step);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_CODE_USE_H_
