// Writes tar shards.
#ifndef SEMVQ_DATA_SHARD_WRITER_H_
#define SEMVQ_DATA_SHARD_WRITER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct archive;

namespace semvq {

// Equal members give equal bytes: there are no times, users or modes in it.
class ShardWriter {
 public:
  // Creates `path`, or empties it.
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Create(
      const std::string& path);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  absl::Status Add(const std::string& name, absl::string_view content);
  // Writes the end marker and flushes to the disk. Nothing may follow.
  absl::Status Finish();

 private:
  ShardWriter(std::string path, int fd, archive* tar)
      : path_(std::move(path)), fd_(fd), tar_(tar) {}
  absl::Status Error(absl::string_view what) const;

  const std::string path_;
  int fd_;
  archive* tar_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SHARD_WRITER_H_
