#include "trainer/run.h"

#include <c10/util/Exception.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <exception>

#include "absl/strings/str_cat.h"
#include "core/config/load.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/util/file.h"
#include "trainer/experiment_run.h"
#include "trainer/report.h"

namespace semvq {
namespace {

std::atomic<int> stop_signal{0};

// The first signal asks to save and exit; a second one ends at once.
void OnSignal(int number) {
  if (stop_signal.exchange(number) != 0) {
    signal(number, SIG_DFL);
    raise(number);
  }
}

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "\nerror: %s\n", std::string(status.message()).c_str());
  return code;
}

absl::StatusOr<std::vector<SourceText>> ReadSources(const std::string& program,
                                                    const Flags& flags) {
  std::vector<SourceText> sources;
  std::vector<std::string> files = {flags.config};
  files.insert(files.end(), flags.overlays.begin(), flags.overlays.end());
  for (const std::string& file : files) {
    auto path =
        ResolveConfigPath(file, WorkingFolder(), ConfigFolders(program));
    if (!path.ok()) return path.status();
    auto source = ReadSource(*path, file);
    if (!source.ok()) return source.status();
    sources.push_back(*std::move(source));
  }
  for (size_t i = 0; i < flags.merges.size(); ++i) {
    sources.push_back({absl::StrCat("--merge #", i + 1), flags.merges[i]});
  }
  return sources;
}

int RunFlags(const std::string& program, const Flags& flags) {
  auto sources = ReadSources(program, flags);
  if (!sources.ok()) return Fail(sources.status(), kExitBadInput);
  const LoadResult loaded = LoadExperiment(*sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  if (!errors.empty()) {
    std::fprintf(stderr, "%s\n", FormatReport(errors).c_str());
    return kExitBadInput;
  }
  StagesResult stages = ResolveStages(loaded.experiment, loaded.provenance);
  auto chosen = ChooseStages(stages.stages, flags);
  if (!chosen.ok()) return Fail(chosen.status(), kExitBadInput);
  std::printf("%s", FormatExperiment(loaded.experiment, stages.stages).c_str());
  if (flags.mode == Flags::RunMode::kValidate) {
    std::printf("valid: every plugin, value and contract of %zu stage%s\n",
                stages.stages.size(), stages.stages.size() == 1 ? "" : "s");
    return kExitDone;
  }
  std::fflush(stdout);

  // Plugins open files by relative paths, too.
  if (chdir(WorkingFolder().c_str()) != 0) {
    return Fail(FileError(errno, "cannot go to the folder", WorkingFolder()),
                kExitFailed);
  }
  ExperimentRun run(loaded.experiment, std::move(stages.stages),
                    *std::move(chosen), flags, WorkingFolder(), &stop_signal);
  absl::Status status;
  if (flags.mode == Flags::RunMode::kPlan) {
    status = run.Plan();
    return status.ok() ? kExitDone : Fail(status, kExitFailed);
  }
  status = run.CheckFiles();
  if (!status.ok()) return Fail(status, kExitBadInput);
  status = run.Prepare();
  if (status.ok()) status = run.Run();
  if (status.ok()) return kExitDone;
  return Fail(status, absl::IsCancelled(status) ? kExitStopped : kExitFailed);
}

}  // namespace

int RunTrainer(const std::vector<std::string>& args) {
  const std::string program = args.empty() ? "trainer" : args[0];
  auto flags =
      ParseFlags(absl::MakeConstSpan(args).subspan(args.empty() ? 0 : 1));
  if (!flags.ok()) return Fail(flags.status(), kExitBadInput);
  if (flags->help) {
    std::printf("%s", HelpText().c_str());
    return kExitDone;
  }
  if (flags->list_plugins) {
    std::printf("%s", ListPlugins().c_str());
    return kExitDone;
  }
  // Activations come and go every step: returning them to the kernel each time
  // costs about a tenth of a small model's step in page faults.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  signal(SIGINT, OnSignal);
  signal(SIGTERM, OnSignal);
  // What batch systems send ahead of the end of a job (sbatch
  // --signal=USR1@120).
  signal(SIGUSR1, OnSignal);
  // A file that grows past a quota is an error of the write, not a death.
  signal(SIGXFSZ, SIG_IGN);
  try {
    return RunFlags(program, *flags);
  } catch (const c10::Error& e) {
    return Fail(absl::InternalError(e.what_without_backtrace()), kExitFailed);
  } catch (const std::exception& e) {
    return Fail(absl::InternalError(e.what()), kExitFailed);
  }
}

}  // namespace semvq
