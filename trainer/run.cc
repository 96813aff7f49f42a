#include "trainer/run.h"

#include <c10/util/Exception.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/config/load.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/distributed/launch.h"
#include "core/distributed/rank_session.h"
#include "core/util/file.h"
#include "trainer/experiment_run.h"
#include "trainer/rank_output.h"
#include "trainer/report.h"

namespace semvq {
namespace {

std::atomic<int> stop_signal{0};

// Of a tenth of a second each, for what another rank failed at to be known.
constexpr int kPollsAfterSignal = 50;

// The first signal asks to save and exit; a second one ends at once.
void OnSignal(int number) {
  if (stop_signal.exchange(number) != 0) {
    signal(number, SIG_DFL);
    raise(number);
  }
}

// How a run ended.
struct End {
  absl::Status status;
  int code = kExitDone;
};

// `code`: of a status that is an error.
End EndWith(absl::Status status, int code = kExitFailed) {
  if (status.ok()) code = kExitDone;
  if (absl::IsCancelled(status)) code = kExitStopped;
  return {std::move(status), code};
}

void SaveAndExitOnSignals() {
  signal(SIGINT, OnSignal);
  signal(SIGTERM, OnSignal);
  // What batch systems send ahead of the end of a job (sbatch
  // --signal=USR1@120).
  signal(SIGUSR1, OnSignal);
}

int Say(const End& end) {
  if (!end.status.ok()) {
    std::fprintf(stderr, "\nerror: %s\n",
                 std::string(end.status.message()).c_str());
  }
  return end.code;
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

// An experiment that can be run as far as its text tells.
struct Checked {
  Experiment experiment;
  std::vector<ResolvedStage> stages;
  std::vector<bool> chosen;
};

absl::StatusOr<Checked> Check(const std::string& program, const Flags& flags) {
  auto sources = ReadSources(program, flags);
  if (!sources.ok()) return sources.status();
  LoadResult loaded = LoadExperiment(*sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  if (!errors.empty()) {
    return absl::InvalidArgumentError(FormatReport(errors));
  }
  Checked checked;
  checked.stages = ResolveStages(loaded.experiment, loaded.provenance).stages;
  checked.experiment = std::move(loaded.experiment);
  auto chosen = ChooseStages(checked.stages, flags);
  if (!chosen.ok()) return chosen.status();
  checked.chosen = *std::move(chosen);
  return checked;
}

// `ranks`: null when this process is alone.
End RunChecked(Checked checked, const Flags& flags, RankSession* ranks,
               RankErrors* errors) {
  const size_t stages = checked.stages.size();
  std::printf("%s",
              FormatExperiment(checked.experiment, checked.stages).c_str());
  if (ranks != nullptr) {
    std::printf("%lld ranks, started by %s\n",
                static_cast<long long>(ranks->launch().size),
                ranks->launch().launcher.c_str());
  }
  if (flags.mode == Flags::RunMode::kValidate) {
    std::printf("valid: every plugin, value and contract of %zu stage%s\n",
                stages, stages == 1 ? "" : "s");
    return {};
  }
  std::fflush(stdout);

  // Plugins open files by relative paths, too.
  if (chdir(WorkingFolder().c_str()) != 0) {
    return EndWith(
        FileError(errno, "cannot go to the folder", WorkingFolder()));
  }
  ExperimentRun run(checked.experiment, std::move(checked.stages),
                    std::move(checked.chosen), flags, WorkingFolder(),
                    &stop_signal, ranks);
  if (flags.mode == Flags::RunMode::kPlan) return EndWith(run.Plan());
  absl::Status status = run.CheckFiles();
  if (!status.ok()) return EndWith(std::move(status), kExitBadInput);
  errors->SetFolder(run.folder());
  status = run.Prepare();
  if (status.ok()) status = run.Run();
  return EndWith(std::move(status));
}

// Everything that LibTorch and others throw ends here.
End Guarded(const std::function<End()>& run, bool* thrown) {
  *thrown = true;
  try {
    End end = run();
    *thrown = false;
    return end;
  } catch (const c10::Error& e) {
    return EndWith(absl::InternalError(e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return EndWith(absl::InternalError(e.what()));
  }
}

// Without the destructors: those of a process group may wait for ranks that are
// gone.
[[noreturn]] void Exit(int code) {
  std::fflush(nullptr);
  _exit(code);
}

int RunAlone(const std::string& program, const Flags& flags) {
  SaveAndExitOnSignals();
  bool thrown = false;
  return Say(Guarded(
      [&] {
        auto checked = Check(program, flags);
        if (!checked.ok()) return EndWith(checked.status(), kExitBadInput);
        RankErrors errors(nullptr);
        return RunChecked(*std::move(checked), flags, nullptr, &errors);
      },
      &thrown));
}

// As one of several. What ends one rank ends all, and all say why.
int RunAsRank(const std::string& program, const Flags& flags,
              const Launch& launch) {
  const auto checked = Check(program, flags);
  RankErrors errors(&launch);
  RankSessionOptions options;
  options.timeout = std::chrono::seconds(flags.collective_timeout);
  options.on_lost = [&errors](const std::string& what) {
    Say(EndWith(absl::UnavailableError(what)));
    errors.Write(what);
    Exit(kExitFailed);
  };
  // A write to a rank that is gone is an error to be explained, not a death:
  // Gloo leaves that to its users, of which Python is the usual one.
  signal(SIGPIPE, SIG_IGN);
  auto session = RankSession::Connect(launch, options);
  if (!session.ok()) return Say(EndWith(session.status()));
  // Not before: while it waits for the others there is nothing to save.
  SaveAndExitOnSignals();
  bool thrown = false;
  End end = Guarded(
      [&] {
        if (!checked.ok()) return EndWith(checked.status(), kExitBadInput);
        return RunChecked(*checked, flags, session->get(), &errors);
      },
      &thrown);
  if (end.status.ok() || absl::IsCancelled(end.status)) {
    (*session)->Finish();
    return launch.rank == 0 ? Say(end) : end.code;
  }
  // A scheduler that ends the ranks leaves them some seconds.
  int polls = 0;
  const std::string text = (*session)->Explain(
      std::string(end.status.message()), thrown,
      [&polls] { return stop_signal != 0 && ++polls > kPollsAfterSignal; });
  if (!text.empty()) {
    end.status = absl::Status(end.status.code(), text);
    Say(end);
    errors.Write(text);
  }
  Exit(end.code);
}

}  // namespace

int RunTrainer(const std::vector<std::string>& args) {
  const std::string program = args.empty() ? "trainer" : args[0];
  auto flags =
      ParseFlags(absl::MakeConstSpan(args).subspan(args.empty() ? 0 : 1));
  if (!flags.ok()) return Say(EndWith(flags.status(), kExitBadInput));
  if (flags->help) {
    std::printf("%s", HelpText().c_str());
    return kExitDone;
  }
  if (flags->list_plugins) {
    std::printf("%s", ListPlugins().c_str());
    return kExitDone;
  }
  auto launch = ParseLaunch(CurrentEnvironment());
  if (!launch.ok()) return Say(EndWith(launch.status(), kExitBadInput));
  // Activations come and go every step: returning them to the kernel each time
  // costs about a tenth of a small model's step in page faults.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  // A file that grows past a quota is an error of the write, not a death.
  signal(SIGXFSZ, SIG_IGN);
  if (!launch->has_value()) return RunAlone(program, *flags);
  const bool together = flags->mode == Flags::RunMode::kTrain ||
                        flags->mode == Flags::RunMode::kEval;
  if ((*launch)->rank > 0) {
    if (!together) return kExitDone;  // One of them does it.
    SpeakAsRank((*launch)->rank);
  }
  return together ? RunAsRank(program, *flags, **launch)
                  : RunAlone(program, *flags);
}

}  // namespace semvq
