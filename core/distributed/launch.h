// How this process was started beside others: what torchrun, srun and mpirun
// say in the environment. Free of LibTorch.
#ifndef SEMVQ_CORE_DISTRIBUTED_LAUNCH_H_
#define SEMVQ_CORE_DISTRIBUTED_LAUNCH_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

struct Launch {
  std::string launcher;  // "torchrun", "srun", ...: for messages.
  int64_t rank = 0;
  int64_t size = 1;
  // Among the ranks of this machine: which of its GPUs is this rank's.
  int64_t local_rank = 0;
  // Where the store is served, in which the ranks meet.
  std::string host;
  int port = 0;
  // By torchrun's agent; else by rank 0.
  bool agent_serves = false;
  // How often these ranks were started before (torchrun's elastic restart).
  int64_t restarts = 0;
};

using EnvironmentVariables = std::map<std::string, std::string>;

// The first launcher of these that `environment` tells of; nullopt when there
// is none, and the process is alone:
//
//   torchrun   RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and
//              TORCHELASTIC_*. Kubernetes' PyTorchJob sets the first five, too.
//   Open MPI   OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE
//   PMI        PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS (MPICH,
//              Intel MPI)
//   Slurm      SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, in a step that srun
//              started: in a batch script alone they do not count
//
// An earlier one may itself have been started by a later one (torchrun by srun
// on every machine). Where the launcher names no place to meet, MASTER_ADDR and
// MASTER_PORT do; without these the first host of Slurm's node list and a port
// made of the job's number, and 127.0.0.1:29500 for MPI on one machine.
//
// InvalidArgument names variables of which half are set, that are no numbers or
// out of range, or that contradict each other.
absl::StatusOr<std::optional<Launch>> ParseLaunch(
    const EnvironmentVariables& environment);

// This process's.
EnvironmentVariables CurrentEnvironment();

// For messages: "rank 3", "ranks 0, 4-7". Ascending, at least one.
std::string RankNames(const std::vector<int64_t>& ranks);

// Of Slurm's compressed list, "node[003-010,012],gpu1": "node003".
absl::StatusOr<std::string> FirstHost(absl::string_view node_list);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_LAUNCH_H_
