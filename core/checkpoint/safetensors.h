#ifndef SEMVQ_CORE_CHECKPOINT_SAFETENSORS_H_
#define SEMVQ_CORE_CHECKPOINT_SAFETENSORS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/checkpoint/safetensors_header.h"
#include "core/util/file.h"

namespace semvq {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct FileDigest {
  int64_t size_bytes = 0;
  std::string sha256;  // hexadecimal
};

// Writes dense tensors of any device and stride to `path` and syncs it; the
// bytes depend on names, values and metadata alone, not on the order given.
// dtypes: float64, float32, float16, bfloat16, int64, int32, int16, int8,
// uint8, bool. `digest`, if not null, gets the file's size and SHA-256 without
// reading it again. InvalidArgument for other dtypes, undefined tensors, a name
// given twice, or text that is not UTF-8. Not atomic: on error a part may stay.
absl::Status WriteSafetensors(
    const std::string& path, const NamedTensors& tensors,
    const std::map<std::string, std::string>& metadata = {},
    FileDigest* digest = nullptr);

// A safetensors file, its header checked in full when it is opened. Tensors are
// read on demand; threads may read at the same time.
class SafetensorsFile {
 public:
  // DataLoss, with file and tensor, for a header that is damaged, hostile or
  // does not fit the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);

  // In the order of the file's data.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(absl::string_view name) const;
  // The tensor's place, shape and dtype; null when there is none.
  const SafetensorsEntry* entry(absl::string_view name) const;

  // A contiguous CPU tensor of its own storage. NotFound for other names,
  // DataLoss if the file changed since it was opened.
  absl::StatusOr<at::Tensor> Get(absl::string_view name) const;

  // The same values, memory-mapped: nothing is read before it is used, and
  // nothing is allocated, so weights larger than the free memory can be copied
  // one by one. The tensor outlives this object. Writing to it does not change
  // the file; the file must not shrink meanwhile (FileReader::Map). A tensor
  // that is not aligned to its element size comes by Get.
  absl::StatusOr<at::Tensor> View(absl::string_view name) const;

  const std::map<std::string, std::string>& metadata() const {
    return header_.metadata;
  }
  const std::string& path() const { return file_->path(); }

 private:
  SafetensorsFile(std::unique_ptr<FileReader> file, int64_t data_begin,
                  SafetensorsHeader header);
  absl::StatusOr<const SafetensorsEntry*> Find(absl::string_view name) const;

  std::unique_ptr<FileReader> file_;
  int64_t data_begin_;
  SafetensorsHeader header_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_CHECKPOINT_SAFETENSORS_H_
