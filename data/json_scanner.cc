#include "data/json_scanner.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace semvq {

ByteReader::~ByteReader() {
  if (fd_ >= 0) close(fd_);
}

absl::Status ByteReader::Open(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat("the data file ", path,
                                            " does not exist (",
                                            std::strerror(errno), ")"));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": got ", S_ISDIR(info.st_mode) ? "a folder" : "a special file",
        ", expected a file"));
  }
  // Opening a pipe that nobody writes to would never end.
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": the file is there but cannot be read (",
                     std::strerror(errno), "); check its rights"));
  }
  buffer_.resize(size_t{1} << 18);
  return absl::OkStatus();
}

bool ByteReader::Fill() {
  if (error_ != 0) return false;
  ssize_t n;
  do {
    n = read(fd_, buffer_.data(), buffer_.size());
  } while (n < 0 && errno == EINTR);
  if (n < 0) error_ = errno;
  if (n <= 0) return false;
  before_ += static_cast<int64_t>(size_);
  at_ = 0;
  size_ = static_cast<size_t>(n);
  return true;
}

}  // namespace semvq
