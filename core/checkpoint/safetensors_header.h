#ifndef SEMVQ_CORE_CHECKPOINT_SAFETENSORS_HEADER_H_
#define SEMVQ_CORE_CHECKPOINT_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// The JSON header of a safetensors file, apart from any tensor library.
// Format: https://github.com/huggingface/safetensors#format
namespace semvq {

// Larger headers are refused, as the format's own reader does.
inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as the format spells it: "F32"
  std::vector<int64_t> shape;
  int64_t begin = 0;  // bytes, from the start of the data
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Bytes of one element, or 0 for a dtype that is not supported.
int64_t SafetensorsItemSize(absl::string_view dtype);

// Parses and checks `json`: entries tile [0, data_size) without a gap or an
// overlap, each has the bytes that its shape and dtype need, and starts at a
// multiple of its element size; names are unique. Errors are DataLoss and
// start with `path` and the tensor's name.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(
    absl::string_view json, int64_t data_size, const std::string& path);

// The header as JSON, padded with spaces to a multiple of 8 bytes.
std::string FormatSafetensorsHeader(const SafetensorsHeader& header);

}  // namespace semvq

#endif  // SEMVQ_CORE_CHECKPOINT_SAFETENSORS_HEADER_H_
