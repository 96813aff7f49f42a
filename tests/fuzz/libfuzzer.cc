// How libFuzzer runs under `bazel test --config=fuzz`. The environment says
// more:
//   FUZZ_SECONDS  how long (10)
//   FUZZ_CORPUS   a folder in which the inputs that were found are kept, to go
//                 on from; else they are forgotten
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/fuzz/fuzz.h"

namespace {

std::string Variable(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string scratch = Variable("TEST_TMPDIR", "");
  const std::string kept = Variable("FUZZ_CORPUS", "");
  if (scratch.empty() && kept.empty()) return 0;  // Run by hand.
  const std::string name =
      std::filesystem::path((*argv)[0]).filename().string();
  const std::string found =
      absl::StrCat(kept.empty() ? scratch : kept, "/", name);
  std::error_code error;
  std::filesystem::create_directories(found, error);
  FUZZ_CHECK(!error);

  static std::vector<std::string> arguments(*argv, *argv + *argc);
  // New inputs go to the first folder; the seeds follow.
  arguments.insert(arguments.begin() + 1, found);
  arguments.push_back(
      absl::StrCat("-max_total_time=", Variable("FUZZ_SECONDS", "10")));
  arguments.push_back(absl::StrCat(
      "-artifact_prefix=", Variable("TEST_UNDECLARED_OUTPUTS_DIR", found),
      "/"));
  arguments.push_back("-print_final_stats=1");
  // No input of some kilobytes may take longer, or more memory at once.
  arguments.push_back("-timeout=10");
  arguments.push_back("-malloc_limit_mb=512");
  static std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(&argument[0]);
  pointers.push_back(nullptr);
  *argc = static_cast<int>(arguments.size());
  *argv = pointers.data();
  return 0;
}
