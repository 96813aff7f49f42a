// What the fuzz targets share. A target is one function of bytes,
//   extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// libFuzzer calls it with inputs it makes up, and a plain test with those of
// the corpus (see fuzz.bzl). Bad input must end in a Status.
#ifndef SEMVQ_TESTS_FUZZ_FUZZ_H_
#define SEMVQ_TESTS_FUZZ_FUZZ_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

// Aborts, which both kinds of run report with the input.
#define FUZZ_CHECK(condition)                                     \
  do {                                                            \
    if (!(condition)) {                                           \
      ::semvq::fuzz::CheckFailed(#condition, __FILE__, __LINE__); \
    }                                                             \
  } while (false)

namespace semvq {
namespace fuzz {

[[noreturn]] void CheckFailed(const char* condition, const char* file,
                              int line);

inline absl::string_view Bytes(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The parts of `input` between lines that hold "----" alone; at least one.
std::vector<absl::string_view> Parts(absl::string_view input);

// A regular file with these bytes, in memory, for as long as the object lives.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view contents);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

// A folder of this process's, made on the first call.
const std::string& ScratchFolder();

}  // namespace fuzz
}  // namespace semvq

#endif  // SEMVQ_TESTS_FUZZ_FUZZ_H_
