// Shards that come through commands, kept on a disk of this machine while they
// are in use.
#ifndef SEMVQ_DATA_SOURCES_WEBDATASET_SPOOL_H_
#define SEMVQ_DATA_SOURCES_WEBDATASET_SPOOL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/util/file.h"

namespace semvq {

// Runs a command (see CommandWords) without a shell and writes its standard
// output to `path`, which appears only when it is complete. The command reads
// nothing and shares our standard error. Unavailable when it cannot be started
// or fails, InvalidArgument when it writes more than `max_bytes`: it is then
// ended. Thread-safe.
absl::Status RunToFile(const std::string& command, const std::string& path,
                       int64_t max_bytes);

// Thread-safe; processes may share the folder.
class Spool {
 public:
  Spool(std::string folder, int64_t shards, int64_t max_bytes)
      : folder_(std::move(folder)), shards_(shards), max_bytes_(max_bytes) {}

  // The shard that `command` writes, from the folder or by running it. The
  // oldest shards are removed when there are too many; a reader that is open
  // stays usable. `look`, where given, is called with the file's path while
  // nobody removes it.
  absl::StatusOr<std::shared_ptr<const FileReader>> Open(
      const std::string& command,
      const std::function<absl::Status(const std::string&)>& look =
          nullptr) const;
  // Where it is kept. Names do not depend on more than the command.
  std::string PathOf(const std::string& command) const;

  // Removes what is too much and not being opened.
  void RemoveOldest() const;

 private:
  const std::string folder_;
  const int64_t shards_, max_bytes_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCES_WEBDATASET_SPOOL_H_
