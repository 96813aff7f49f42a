#ifndef SEMVQ_CORE_UTIL_FILE_H_
#define SEMVQ_CORE_UTIL_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// A Status for `errno_value`, "<what> <path>: <reason>". A file that is not
// there is NotFound; a full disk, quota or file size limit is
// ResourceExhausted and says so.
absl::Status FileError(int errno_value, absl::string_view what,
                       absl::string_view path);

// Joins by one '/'; an absolute `name` stands alone.
std::string JoinPath(absl::string_view folder, absl::string_view name);

// The last component of a path.
std::string BaseName(absl::string_view path);

// Everything before the last '/', or "." when there is none.
std::string DirName(absl::string_view path);

bool PathExists(const std::string& path);
bool IsDirectory(const std::string& path);

// Bytes of a regular file.
absl::StatusOr<int64_t> FileSize(const std::string& path);

// No file that is read as a whole is larger.
inline constexpr int64_t kMaxReadFile = int64_t{1} << 30;

// The whole of a regular file; InvalidArgument above kMaxReadFile, before
// anything is allocated.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Names (not paths) in a folder, sorted, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

// Makes a folder and its parents; one that exists is fine.
absl::Status MakeDirectories(const std::string& path);

// Removes a file or a folder with all in it; what is not there is fine.
absl::Status RemoveTree(const std::string& path);

// Makes renames and new names in a folder survive a power cut.
absl::Status SyncDirectory(const std::string& path);

// rename(2), with a Status.
absl::Status RenamePath(const std::string& from, const std::string& to);

// Replaces `path` by `contents` so that readers, and a crash at any moment,
// see either the old file or the new one: temporary name, fsync, rename, fsync
// of the folder. On error the old file stays and no temporary one remains.
absl::Status AtomicWriteFile(const std::string& path,
                             absl::string_view contents);

// An append-only file for data that must be known to be on disk.
class FileWriter {
 public:
  // Creates `path`, or empties it.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Create(
      const std::string& path);

  // Opens `path` to append, creating it when it is not there.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Append(
      const std::string& path);

  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  absl::Status Write(const void* data, size_t size);
  absl::Status Write(absl::string_view data) {
    return Write(data.data(), data.size());
  }

  // fsync(2).
  absl::Status Sync();

  // Closes, and reports what the kernel only says then. Further calls are ok.
  absl::Status Close();

  const std::string& path() const { return path_; }

 private:
  FileWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;
};

// Random reads of one regular file. ReadAt goes by pread(2) and not through a
// mapping: a file that shrinks under us is then an error, not a SIGBUS. Reads
// may come from several threads.
class FileReader {
 public:
  static absl::StatusOr<std::unique_ptr<FileReader>> Open(
      const std::string& path);

  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  // Fills `data` with exactly `size` bytes from `offset`; fewer are DataLoss.
  absl::Status ReadAt(int64_t offset, void* data, size_t size) const;

  // Maps the whole file, on the first call; later ones share the mapping, which
  // lives as long as any result of this. Pages are read when they are touched;
  // writing to them changes no file. If the file shrinks after this call,
  // touching what it lost kills the process. DataLoss if it shrank before.
  absl::StatusOr<std::shared_ptr<char>> Map();

  // Bytes in the file when it was opened.
  int64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  FileReader(std::string path, int fd, int64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}

  std::string path_;
  int fd_;
  int64_t size_;
  std::mutex mutex_;
  std::weak_ptr<char> map_;  // Guarded by mutex_.
};

}  // namespace semvq

#endif  // SEMVQ_CORE_UTIL_FILE_H_
