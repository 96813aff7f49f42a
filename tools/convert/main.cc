#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "core/config/source.h"
#include "tools/convert/convert.h"

int main(int argc, char** argv) try {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty() || args[0] == "--help") {
    std::fputs(semvq::ConvertHelp().c_str(), stdout);
    return args.empty() ? 2 : 0;
  }
  const auto done = semvq::Convert(
      args,
      {semvq::WorkingFolder(), semvq::ConfigFolders(semvq::ProgramPath())});
  if (!done.ok()) {
    std::fprintf(stderr, "%s\n", std::string(done.status().message()).c_str());
    return 1;
  }
  std::printf("%s\n", done->c_str());
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
