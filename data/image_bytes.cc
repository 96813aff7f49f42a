#include "data/image_bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"

namespace semvq {
namespace {

absl::Status TooLarge(absl::string_view path, int64_t bytes,
                      int64_t max_bytes) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": the image has ", bytes, " bytes, expected at most ", max_bytes));
}

// A missing file beside others is one bad sample; a missing disk is another
// matter, and the message tells them apart.
absl::Status Missing(const std::string& path) {
  std::string lost, folder = DirName(path);
  while (!PathExists(folder) && folder != "." && folder != "/") {
    lost = folder;
    folder = DirName(folder);
  }
  return absl::NotFoundError(absl::StrCat(
      path, ": the file does not exist",
      lost.empty()
          ? ""
          : absl::StrCat(", nor does ", lost, "; is its disk still mounted?")));
}

}  // namespace

absl::StatusOr<std::string> ReadImageFile(const std::string& path,
                                          int64_t max_bytes) {
  // A pipe with no writer must not hang: O_NONBLOCK is without effect on files.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return Missing(path);
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", std::strerror(errno)));
  }
  struct stat info;
  std::string content;
  absl::Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(
        absl::StrCat(path, ": got a folder or device, expected an image file"));
  } else if (info.st_size > max_bytes) {
    status = TooLarge(path, info.st_size, max_bytes);
  } else {
    content.resize(static_cast<size_t>(info.st_size));
    size_t done = 0;
    while (done < content.size()) {
      const ssize_t n = read(fd, content.data() + done, content.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        status = absl::InvalidArgumentError(
            absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    content.resize(done);
  }
  close(fd);
  if (!status.ok()) return status;
  return content;
}

absl::StatusOr<std::string> ReadSampleImage(const Sample& sample, size_t slot,
                                            int64_t max_bytes) {
  if (sample.image_ranges.empty())
    return ReadImageFile(sample.image_paths[slot], max_bytes);
  const FileRange& range = sample.image_ranges[slot];
  if (range.size > max_bytes)
    return TooLarge(sample.image_paths[slot], range.size, max_bytes);
  std::string content(static_cast<size_t>(range.size), '\0');
  const absl::Status status =
      range.file->ReadAt(range.offset, content.data(), content.size());
  if (!status.ok()) return status;
  return content;
}

absl::StatusOr<std::string> ImagePath(absl::string_view root,
                                      absl::string_view name) {
  std::string path(name);
  if (!absl::StartsWith(name, "/")) {
    path = absl::StrCat(root, "/", name);
  } else if (!absl::StartsWith(name, absl::EndsWith(root, "/")
                                         ? std::string(root)
                                         : absl::StrCat(root, "/"))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the image ", name, " is outside of ", root,
        "; data must not choose files elsewhere: set image_root (\"/\" allows "
        "every absolute path)"));
  }
  int depth = 0;
  const absl::string_view below =
      absl::StartsWith(name, "/") ? name.substr(root.size()) : name;
  for (const absl::string_view part : absl::StrSplit(below, '/')) {
    if (part.empty() || part == ".") continue;
    depth += part == ".." ? -1 : 1;
    if (depth < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the image ", name, " is outside of ", root,
                       "; data must not choose files elsewhere: name it from "
                       "image_root on"));
    }
  }
  return path;
}

}  // namespace semvq
