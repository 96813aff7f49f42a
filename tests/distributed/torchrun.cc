#include "tests/distributed/torchrun.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"

namespace semvq {
namespace {

// The folder that holds LibTorch's package `torch`.
std::string PackageFolder() {
  Dl_info info = {};
  void (*in_libc10)(const c10::Warning&) = &c10::warn;
  EXPECT_NE(dladdr(reinterpret_cast<void*>(in_libc10), &info), 0);
  // <here>/torch/lib/libc10.so
  return DirName(DirName(DirName(info.dli_fname)));
}

// The Python that the package was made for: pip writes it into its scripts.
std::string Python(const std::string& package) {
  std::ifstream script(JoinPath(package, "bin/torchrun"));
  std::string line;
  if (std::getline(script, line) && absl::StartsWith(line, "#!/")) {
    return line.substr(2);
  }
  return "python3";
}

// What the dynamic linker does not find for `library`.
std::vector<std::string> Missing(const std::string& library,
                                 const std::string& prefix) {
  Process ldd({"ldd", library}, {}, prefix);
  EXPECT_TRUE(ldd.Wait(60));
  std::vector<std::string> missing;
  for (absl::string_view line : absl::StrSplit(ldd.End().output, '\n')) {
    if (!absl::StrContains(line, "not found")) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    missing.emplace_back(words.front());
  }
  return missing;
}

}  // namespace

Process StartTorchrun(const std::vector<std::string>& arguments,
                      std::map<std::string, std::string> environment,
                      const std::string& prefix) {
  const std::string package = PackageFolder();
  const std::string stand_ins = prefix + ".lib";
  EXPECT_TRUE(RemoveTree(stand_ins).ok());
  EXPECT_TRUE(MakeDirectories(stand_ins).ok());
  const std::string empty = Runfile("tests/distributed/libempty.so");
  for (const std::string& name :
       Missing(JoinPath(package, "torch/lib/libtorch_python.so"),
               prefix + ".ldd")) {
    EXPECT_EQ(symlink(empty.c_str(), JoinPath(stand_ins, name).c_str()), 0);
  }
  environment["PYTHONPATH"] = package;
  environment["LD_LIBRARY_PATH"] = stand_ins;
  // Nothing but one machine is spoken to, and nothing is written elsewhere.
  environment["PYTHONDONTWRITEBYTECODE"] = "1";
  // Functions are looked up when they are called: the stand-ins have none.
  std::vector<std::string> command = {
      Python(package), "-W", "ignore", "-c",
      "import os, sys; sys.setdlopenflags(os.RTLD_LAZY)\n"
      "from torch.distributed.run import main; main()"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Process(command, environment, prefix);
}

pid_t ChildOf(pid_t parent, const std::string& name) {
  auto processes = ListDirectory("/proc");
  if (!processes.ok()) return 0;
  for (const std::string& entry : *processes) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(entry, &pid)) continue;
    std::ifstream file(absl::StrCat("/proc/", entry, "/stat"));
    const std::string stat(std::istreambuf_iterator<char>(file), {});
    // "123 (name) S 45 ..."; nothing when it has ended.
    const size_t open = stat.find('('), close = stat.rfind(')');
    if (open == std::string::npos || close == std::string::npos) continue;
    const std::vector<std::string> rest = absl::StrSplit(
        absl::string_view(stat).substr(close + 1), ' ', absl::SkipEmpty());
    pid_t its_parent = 0;
    if (stat.substr(open + 1, close - open - 1) == name && rest.size() > 1 &&
        absl::SimpleAtoi(rest[1], &its_parent) && its_parent == parent) {
      return pid;
    }
  }
  return 0;
}

}  // namespace semvq
