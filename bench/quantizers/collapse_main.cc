// Do quantizers keep their codes in use on real features? --help
#include <c10/util/Exception.h>
#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "bench/quantizers/collapse.h"
#include "core/config/source.h"
#include "core/util/file.h"

namespace semvq {
namespace {

// What the project promises of every learned quantizer.
constexpr double kLeastUsed = 0.6;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "\nerror: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}

int Main(const std::string& program, const std::vector<std::string>& args) {
  const auto options = ParseCollapseFlags(args);
  if (!options.ok()) return Fail(options.status());
  if (options->help) {
    std::fputs(CollapseHelp().c_str(), stdout);
    return 0;
  }
  CollapsePlaces places;
  places.working_folder = WorkingFolder();
  places.config_folders = ConfigFolders(program);
  for (const std::string& folder : places.config_folders)
    places.arms_folders.push_back(
        JoinPath(DirName(folder), "bench/quantizers"));
  // Plugins open files by relative paths, too.
  if (chdir(places.working_folder.c_str()) != 0) {
    return Fail(
        FileError(errno, "cannot go to the folder", places.working_folder));
  }
  // As the trainer does: a step's tensors come and go.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  const auto outcome =
      RunCollapse(*options, places, [&](const CollapseOutcome& so_far) {
        if (options->json.empty()) return absl::OkStatus();
        return AtomicWriteFile(JoinPath(places.working_folder, options->json),
                               CollapseJson(so_far.results, so_far.facts));
      });
  if (!outcome.ok()) return Fail(outcome.status());
  std::printf("%s", CollapseTable(outcome->results, outcome->facts).c_str());
  const std::vector<std::string> collapsed =
      Collapsed(outcome->results, kLeastUsed);
  std::printf(
      "\nbelow %.0f %%: %s\n", 100 * kLeastUsed,
      collapsed.empty() ? "none" : absl::StrJoin(collapsed, ", ").c_str());
  return 0;
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  try {
    return semvq::Main(argv[0],
                       std::vector<std::string>(argv + 1, argv + argc));
  } catch (const c10::Error& e) {
    return semvq::Fail(absl::InternalError(e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return semvq::Fail(absl::InternalError(e.what()));
  }
}
