#include "core/util/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

// One read(2) or write(2) never moves more than this on Linux.
constexpr size_t kMaxTransfer = size_t{1} << 30;

absl::Status OpenRegular(const std::string& path, int* fd, int64_t* size) {
  // Opening a pipe that nobody writes to would never end.
  *fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0) return FileError(errno, "cannot open", path);
  struct stat info;
  if (fstat(*fd, &info) != 0) {
    const int error = errno;
    close(*fd);
    return FileError(error, "cannot examine", path);
  }
  if (!S_ISREG(info.st_mode)) {
    close(*fd);
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a regular file, got ",
                     S_ISDIR(info.st_mode) ? "a folder" : "a special file"));
  }
  *size = info.st_size;
  return absl::OkStatus();
}

}  // namespace

absl::Status FileError(int errno_value, absl::string_view what,
                       absl::string_view path) {
  const std::string message = absl::StrCat(
      what, " ", path, ": ",
      std::error_code(errno_value, std::generic_category()).message());
  switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, " (free some space, then try again)"));
    case EFBIG:
      return absl::ResourceExhaustedError(
          absl::StrCat(message, " (a file size limit; see ulimit -f)"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EINVAL:
    case EISDIR:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

std::string JoinPath(absl::string_view folder, absl::string_view name) {
  if (folder.empty() || (!name.empty() && name.front() == '/')) {
    return std::string(name);
  }
  if (folder.back() == '/') return absl::StrCat(folder, name);
  return absl::StrCat(folder, "/", name);
}

std::string BaseName(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos || path.size() == 1) {
    return std::string(path);
  }
  return std::string(path.substr(slash + 1));
}

std::string DirName(absl::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  return std::string(path.substr(0, std::max<size_t>(slash, 1)));
}

bool PathExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return FileError(errno, "cannot examine", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected a regular file"));
  }
  return info.st_size;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  auto reader = FileReader::Open(path);
  if (!reader.ok()) return reader.status();
  if ((*reader)->size() > kMaxReadFile) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has ", (*reader)->size(), " bytes; at most ",
                     kMaxReadFile, " are read of a file of this kind"));
  }
  std::string contents((*reader)->size(), '\0');
  if (absl::Status s = (*reader)->ReadAt(0, &contents[0], contents.size());
      !s.ok()) {
    return s;
  }
  return contents;
}

absl::StatusOr<std::vector<std::string>> ListDirectory(
    const std::string& path) {
  DIR* folder = opendir(path.c_str());
  if (folder == nullptr) return FileError(errno, "cannot list", path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  closedir(folder);
  if (error != 0) return FileError(error, "cannot list", path);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return FileError(error.value(), "cannot make folder", path);
  if (!IsDirectory(path)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, ": expected a folder, got a file"));
  }
  return absl::OkStatus();
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error && error != std::errc::no_such_file_or_directory) {
    return FileError(error.value(), "cannot remove", path);
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return FileError(errno, "cannot open folder", path);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some network file systems cannot sync a folder and say EINVAL.
  if (result != 0 && error != EINVAL) {
    return FileError(error, "cannot sync folder", path);
  }
  return absl::OkStatus();
}

absl::Status RenamePath(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) {
    return FileError(errno, absl::StrCat("cannot rename ", from, " to"), to);
  }
  return absl::OkStatus();
}

absl::Status AtomicWriteFile(const std::string& path,
                             absl::string_view contents) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  auto write = [&]() -> absl::Status {
    auto file = FileWriter::Create(temporary);
    if (!file.ok()) return file.status();
    if (absl::Status s = (*file)->Write(contents); !s.ok()) return s;
    if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
    if (absl::Status s = (*file)->Close(); !s.ok()) return s;
    return RenamePath(temporary, path);
  };
  if (absl::Status s = write(); !s.ok()) {
    unlink(temporary.c_str());
    return s;
  }
  return SyncDirectory(DirName(path));
}

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Create(
    const std::string& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return FileError(errno, "cannot create", path);
  return std::unique_ptr<FileWriter>(new FileWriter(path, fd));
}

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Append(
    const std::string& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return FileError(errno, "cannot open", path);
  return std::unique_ptr<FileWriter>(new FileWriter(path, fd));
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) close(fd_);
}

absl::Status FileWriter::Write(const void* data, size_t size) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = write(fd_, next, std::min(size, kMaxTransfer));
    if (written < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "cannot write", path_);
    }
    next += written;
    size -= written;
  }
  return absl::OkStatus();
}

absl::Status FileWriter::Sync() {
  if (fsync(fd_) != 0) return FileError(errno, "cannot sync", path_);
  return absl::OkStatus();
}

absl::Status FileWriter::Close() {
  if (fd_ < 0) return absl::OkStatus();
  const int result = close(std::exchange(fd_, -1));
  if (result != 0) return FileError(errno, "cannot close", path_);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileReader>> FileReader::Open(
    const std::string& path) {
  int fd = -1;
  int64_t size = 0;
  if (absl::Status s = OpenRegular(path, &fd, &size); !s.ok()) return s;
  return std::unique_ptr<FileReader>(new FileReader(path, fd, size));
}

FileReader::~FileReader() { close(fd_); }

absl::StatusOr<std::shared_ptr<char>> FileReader::Map() {
  struct stat info;
  if (fstat(fd_, &info) != 0) return FileError(errno, "cannot examine", path_);
  if (info.st_size < size_) {
    return absl::DataLossError(
        absl::StrCat(path_, ": has ", info.st_size, " bytes, but had ", size_,
                     " when it was opened; the file was truncated"));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (std::shared_ptr<char> map = map_.lock()) return map;
  const size_t size = std::max<int64_t>(size_, 1);  // mmap refuses 0 bytes.
  // Private and writable: tensors of the mapping may be changed in memory.
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_NORESERVE, fd_, 0);
  if (data == MAP_FAILED) return FileError(errno, "cannot map", path_);
  std::shared_ptr<char> map(static_cast<char*>(data),
                            [size](char* begin) { munmap(begin, size); });
  map_ = map;
  return map;
}

absl::Status FileReader::ReadAt(int64_t offset, void* data, size_t size) const {
  char* next = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = pread(fd_, next, std::min(size, kMaxTransfer), offset);
    if (got < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "cannot read", path_);
    }
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, ": ends at byte ", offset, ", but ", size,
                       " more bytes were expected; the file was truncated"));
    }
    next += got;
    offset += got;
    size -= got;
  }
  return absl::OkStatus();
}

}  // namespace semvq
