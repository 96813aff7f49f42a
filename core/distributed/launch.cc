#include "core/distributed/launch.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

constexpr int kDefaultPort = 29500;  // torchrun's.
// Ports made of job numbers: below those that the kernel gives to clients.
constexpr int kFirstJobPort = 15000, kJobPorts = 10000;
// Slurm's numbers of steps that are no parallel ones: batch script, salloc's
// shell and others. SLURM_STEP_ID holds them as unsigned 32-bit numbers.
constexpr int64_t kFirstSpecialStep = 0xfffffff0;

struct Names {
  std::string launcher, rank, size, local_rank;
};

class Parser {
 public:
  explicit Parser(const EnvironmentVariables& environment)
      : environment_(environment) {}

  absl::StatusOr<std::optional<Launch>> Parse() const {
    const Names torchrun = {Has("TORCHELASTIC_RUN_ID")
                                ? "torchrun"
                                : "the environment (RANK, WORLD_SIZE)",
                            "RANK", "WORLD_SIZE", "LOCAL_RANK"};
    const Names open_mpi = {"mpirun (Open MPI)", "OMPI_COMM_WORLD_RANK",
                            "OMPI_COMM_WORLD_SIZE",
                            "OMPI_COMM_WORLD_LOCAL_RANK"};
    const Names pmi = {"mpirun (PMI)", "PMI_RANK", "PMI_SIZE",
                       "MPI_LOCALRANKID"};
    if (Has(torchrun.rank) || Has(torchrun.size)) {
      absl::StatusOr<Launch> launch = Ranks(torchrun);
      if (!launch.ok()) return launch.status();
      absl::Status status = Torchrun(&*launch);
      // Without an agent, one process of this launcher is one rank.
      if (status.ok() && !Has("TORCHELASTIC_RUN_ID")) {
        status = Agree(*launch, torchrun, {open_mpi, pmi});
      }
      if (!status.ok()) return status;
      return *std::move(launch);
    }
    for (const Names& mpi : {open_mpi, pmi}) {
      if (!Has(mpi.rank) && !Has(mpi.size)) continue;
      absl::StatusOr<Launch> launch = Ranks(mpi);
      if (!launch.ok()) return launch.status();
      absl::Status status =
          MeetOfMpi(mpi.rank == "PMI_RANK" ? "MPI_LOCALNRANKS"
                                           : "OMPI_COMM_WORLD_LOCAL_SIZE",
                    &*launch);
      if (!status.ok()) return status;
      return *std::move(launch);
    }
    absl::StatusOr<bool> step = InSlurmStep();
    if (!step.ok()) return step.status();
    if (*step) {
      absl::StatusOr<Launch> launch =
          Ranks({"srun", "SLURM_PROCID",
                 Has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS"
                                             : "SLURM_NTASKS",
                 "SLURM_LOCALID"});
      if (!launch.ok()) return launch.status();
      absl::Status status = MeetOfSlurm(&*launch);
      if (!status.ok()) return status;
      return *std::move(launch);
    }
    return std::optional<Launch>();
  }

 private:
  // Empty counts as not set.
  bool Has(const std::string& name) const { return !Get(name).empty(); }

  std::string Get(const std::string& name) const {
    auto found = environment_.find(name);
    return found == environment_.end() ? "" : found->second;
  }

  absl::StatusOr<int64_t> Number(const std::string& name, int64_t from,
                                 int64_t to) const {
    int64_t value = 0;
    if (absl::SimpleAtoi(Get(name), &value) && value >= from && value <= to) {
      return value;
    }
    return absl::InvalidArgumentError(
        absl::StrCat("the environment variable ", name, " is \"", Get(name),
                     "\", expected a whole number from ", from, " to ", to));
  }

  absl::StatusOr<Launch> Ranks(const Names& names) const {
    constexpr int64_t kMostRanks = 1 << 20;
    for (const auto& [set, missing] : {std::pair(names.rank, names.size),
                                       std::pair(names.size, names.rank)}) {
      if (Has(set) && !Has(missing)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the environment variable ", set, " is set and ", missing,
            " is not; set both to run as one of several processes, neither to "
            "run alone"));
      }
    }
    Launch launch;
    launch.launcher = names.launcher;
    absl::StatusOr<int64_t> size = Number(names.size, 1, kMostRanks);
    if (!size.ok()) return size.status();
    absl::StatusOr<int64_t> rank = Number(names.rank, 0, *size - 1);
    if (!rank.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          rank.status().message(), " (", names.size, " is ", *size, ")"));
    }
    launch.rank = *rank;
    launch.size = *size;
    if (Has(names.local_rank)) {
      absl::StatusOr<int64_t> local = Number(names.local_rank, 0, *size - 1);
      if (!local.ok()) return local.status();
      launch.local_rank = *local;
    }
    return launch;
  }

  absl::Status Torchrun(Launch* launch) const {
    // torchrun always says where; one process needs no place to meet.
    if (launch->size > 1 || Has("MASTER_ADDR") || Has("MASTER_PORT")) {
      for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
        if (Has(name)) continue;
        return absl::InvalidArgumentError(absl::StrCat(
            "the environment variable ", name, " is not set, but RANK is ",
            launch->rank, " and WORLD_SIZE ", launch->size,
            "; MASTER_ADDR and MASTER_PORT say where rank 0 waits for the "
            "others (torchrun sets all four)"));
      }
      absl::Status status = Meet("", 0, launch);
      if (!status.ok()) return status;
    }
    const std::string agent = Get("TORCHELASTIC_USE_AGENT_STORE");
    if (!agent.empty() && agent != "True" && agent != "False") {
      return absl::InvalidArgumentError(absl::StrCat(
          "the environment variable TORCHELASTIC_USE_AGENT_STORE is \"", agent,
          "\", expected True or False"));
    }
    launch->agent_serves = agent == "True";
    if (Has("TORCHELASTIC_RESTART_COUNT")) {
      absl::StatusOr<int64_t> restarts =
          Number("TORCHELASTIC_RESTART_COUNT", 0, 1 << 30);
      if (!restarts.ok()) return restarts.status();
      launch->restarts = *restarts;
    }
    return absl::OkStatus();
  }

  absl::Status Agree(const Launch& launch, const Names& names,
                     const std::vector<Names>& others) const {
    for (const Names& other : others) {
      if (!Has(other.rank) || !Has(other.size)) continue;
      if (Get(other.rank) == absl::StrCat(launch.rank) &&
          Get(other.size) == absl::StrCat(launch.size)) {
        continue;
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "two launchers contradict each other: ", names.rank, "=", launch.rank,
          " and ", names.size, "=", launch.size, ", but ", other.rank, "=",
          Get(other.rank), " and ", other.size, "=", Get(other.size),
          "; unset the one that did not start this process"));
    }
    return absl::OkStatus();
  }

  // MASTER_ADDR and MASTER_PORT, or these.
  absl::Status Meet(const std::string& host, int port, Launch* launch) const {
    launch->host = Has("MASTER_ADDR") ? Get("MASTER_ADDR") : host;
    launch->port = port;
    if (Has("MASTER_PORT")) {
      absl::StatusOr<int64_t> number = Number("MASTER_PORT", 1, 65535);
      if (!number.ok()) return number.status();
      launch->port = static_cast<int>(*number);
    }
    return absl::OkStatus();
  }

  absl::Status MeetOfMpi(const std::string& local_size, Launch* launch) const {
    int64_t here = 0;
    if (Has(local_size)) {
      absl::StatusOr<int64_t> number = Number(local_size, 1, launch->size);
      if (!number.ok()) return number.status();
      here = *number;
    }
    if (!Has("MASTER_ADDR") && here != launch->size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "mpirun started ", launch->size,
          " ranks on several machines, and MASTER_ADDR does not say where rank "
          "0 is; give it to all of them: mpirun -x MASTER_ADDR=$(hostname) "
          "(MPICH: -genv MASTER_ADDR $(hostname))"));
    }
    return Meet("127.0.0.1", kDefaultPort, launch);
  }

  absl::StatusOr<bool> InSlurmStep() const {
    if (!Has("SLURM_STEP_ID") ||
        (!Has("SLURM_PROCID") && !Has("SLURM_NTASKS") &&
         !Has("SLURM_STEP_NUM_TASKS"))) {
      return false;
    }
    absl::StatusOr<int64_t> step = Number("SLURM_STEP_ID", 0, 0xffffffff);
    if (!step.ok()) return step.status();
    return *step < kFirstSpecialStep;
  }

  absl::Status MeetOfSlurm(Launch* launch) const {
    int64_t job = 0, step = 0;
    if (!absl::SimpleAtoi(Get("SLURM_JOB_ID"), &job) ||
        !absl::SimpleAtoi(Get("SLURM_STEP_ID"), &step)) {
      job = step = 0;
    }
    // Two steps of a job may share a machine, two jobs as well.
    const int port =
        kFirstJobPort + static_cast<int>((job * 16 + step) % kJobPorts);
    std::string host;
    if (!Has("MASTER_ADDR")) {
      const std::string name = Has("SLURM_STEP_NODELIST")
                                   ? "SLURM_STEP_NODELIST"
                                   : "SLURM_JOB_NODELIST";
      if (!Has(name)) {
        return absl::InvalidArgumentError(
            "srun started this process, but neither SLURM_JOB_NODELIST nor "
            "MASTER_ADDR says where rank 0 is");
      }
      absl::StatusOr<std::string> first = FirstHost(Get(name));
      if (!first.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the environment variable ", name, ": ", first.status().message()));
      }
      host = *std::move(first);
    }
    return Meet(host, port, launch);
  }

  const EnvironmentVariables& environment_;
};

}  // namespace

absl::StatusOr<std::optional<Launch>> ParseLaunch(
    const EnvironmentVariables& environment) {
  return Parser(environment).Parse();
}

EnvironmentVariables CurrentEnvironment() {
  EnvironmentVariables all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const absl::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals == absl::string_view::npos) continue;
    all[std::string(text.substr(0, equals))] =
        std::string(text.substr(equals + 1));
  }
  return all;
}

std::string RankNames(const std::vector<int64_t>& ranks) {
  std::string names = ranks.size() == 1 ? "rank" : "ranks";
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1)
      ++last;
    // Two in a row are no range.
    if (last == i + 1) last = i;
    absl::StrAppend(&names, i == 0 ? " " : ", ", ranks[i]);
    if (last > i) absl::StrAppend(&names, "-", ranks[last]);
    i = last + 1;
  }
  return names;
}

absl::StatusOr<std::string> FirstHost(absl::string_view node_list) {
  std::string host;
  for (size_t i = 0; i < node_list.size() && node_list[i] != ','; ++i) {
    if (node_list[i] != '[') {
      host.push_back(node_list[i]);
      continue;
    }
    const size_t close = node_list.find(']', i);
    if (close == absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", node_list, "\" has a [ without its ]"));
    }
    const absl::string_view numbers = node_list.substr(i + 1, close - i - 1);
    const absl::string_view first =
        numbers.substr(0, numbers.find_first_of(",-"));
    if (first.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", node_list, "\" has no number after a ["));
    }
    absl::StrAppend(&host, first);
    i = close;
  }
  if (host.empty() || absl::StrContains(host, "]")) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", node_list, "\" is no list of host names"));
  }
  return host;
}

}  // namespace semvq
