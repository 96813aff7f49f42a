// The bytes of image files and of images in shards, no more than a limit.
#ifndef SEMVQ_DATA_IMAGE_BYTES_H_
#define SEMVQ_DATA_IMAGE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/source.h"

namespace semvq {

// An image file may not be longer: 64 MiB, more than any that trains well.
constexpr int64_t kMaxImageBytes = int64_t{1} << 26;

// The whole of an image file. NotFound when there is none (the message says so
// when not even its disk or folder is), InvalidArgument for a folder or device,
// and for more than `max_bytes` bytes, of which none is read. Messages start
// with the path.
absl::StatusOr<std::string> ReadImageFile(const std::string& path,
                                          int64_t max_bytes);

// The same for the image in `slot` of a sample, which may lie in a shard.
absl::StatusOr<std::string> ReadSampleImage(const Sample& sample, size_t slot,
                                            int64_t max_bytes);

// Where an annotation's image `name` is below `root`. InvalidArgument for names
// that would leave it: data must not choose which files of a machine are read.
// An absolute name is fine when it begins with root, so a root of "/" allows
// all. Symbolic links below root are the user's own, and followed.
absl::StatusOr<std::string> ImagePath(absl::string_view root,
                                      absl::string_view name);

}  // namespace semvq

#endif  // SEMVQ_DATA_IMAGE_BYTES_H_
