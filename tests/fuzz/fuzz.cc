#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace semvq {
namespace fuzz {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
  std::abort();
}

std::vector<absl::string_view> Parts(absl::string_view input) {
  return absl::StrSplit(input, "\n----\n");
}

MemoryFile::MemoryFile(absl::string_view contents)
    : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
  FUZZ_CHECK(fd_ >= 0);
  while (!contents.empty()) {
    const ssize_t written = write(fd_, contents.data(), contents.size());
    FUZZ_CHECK(written > 0);
    contents.remove_prefix(static_cast<size_t>(written));
  }
  path_ = absl::StrCat("/proc/self/fd/", fd_);
}

MemoryFile::~MemoryFile() { close(fd_); }

const std::string& ScratchFolder() {
  static const std::string* folder = [] {
    const char* root = std::getenv("TEST_TMPDIR");
    auto* path = new std::string(
        absl::StrCat(root == nullptr ? "/tmp" : root, "/fuzz.XXXXXX"));
    FUZZ_CHECK(mkdtemp(&(*path)[0]) != nullptr);
    return path;
  }();
  return *folder;
}

}  // namespace fuzz
}  // namespace semvq
