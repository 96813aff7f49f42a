// Runs the trainer as several ranks of this machine, each a process of its own,
// and does to them what machines, users and schedulers do.
#ifndef SEMVQ_TESTS_DISTRIBUTED_RANKS_H_
#define SEMVQ_TESTS_DISTRIBUTED_RANKS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace semvq {

// Of the trainer.
inline constexpr int kDone = 0, kFailed = 1, kBadInput = 2, kStopped = 3;

// Images of one rank in a step of the tiny run.
inline constexpr int64_t kBatch = 6;

struct RankEnd {
  int code = -1;   // Exit status; -1 when a signal ended it, or nothing did.
  int killed = 0;  // That signal.
  std::string output;  // stdout, then stderr.
};

// A process, and what it prints into files of `prefix`.
class Process {
 public:
  Process(const std::vector<std::string>& arguments,
          const std::map<std::string, std::string>& environment,
          const std::string& prefix);
  // Kills what still runs.
  ~Process();
  Process(Process&& other);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool Running();
  void Signal(int number);
  // False when it still runs after so many seconds.
  bool Wait(double seconds);
  // After it ended.
  RankEnd End();

 private:
  pid_t pid_;
  std::string prefix_;
  bool ended_ = false;
  int status_ = 0;
};

// What torchrun gives to a rank.
std::map<std::string, std::string> RankEnvironment(int64_t rank, int64_t size,
                                                   int port);

// The tiny experiment (tests/e2e/tiny.pbtxt) on its data set, in a folder.
class TinyRun {
 public:
  // Makes data set and experiment in `folder`, which is emptied.
  explicit TinyRun(const std::string& folder);

  // More flags of the trainer.
  std::vector<std::string> flags;

  const std::string& folder() const { return folder_; }
  // The trainer's command line: pretraining alone, one step a micro-batch,
  // saved after every step; `more` is merged into it.
  std::vector<std::string> Command(const std::string& more = "") const;
  // Of all its processes; results go below `where` in the folder.
  std::map<std::string, std::string> Environment(
      const std::string& where) const;
  // Starts one rank, with variables beside or instead of the usual ones.
  Process StartRank(
      int64_t rank, int64_t ranks, int port, const std::string& where,
      const std::string& more = "",
      const std::map<std::string, std::string>& variables = {}) const;
  // Starts all ranks of one launch.
  std::vector<Process> Start(int64_t ranks, const std::string& where,
                             const std::string& more = "") const;
  // Starts them and waits for their ends, so long for each.
  std::vector<RankEnd> Run(int64_t ranks, const std::string& where,
                           const std::string& more = "",
                           double seconds = 250) const;

  std::string RunFolder(const std::string& where) const;
  std::string CheckpointFolder(const std::string& where, int64_t step) const;
  // The newest checkpoint that has its name; 0: none.
  int64_t NewestStep(const std::string& where) const;
  // Whether a checkpoint is being written.
  bool Saving(const std::string& where) const;
  // Every byte of parameters, optimizer and all other state of the checkpoint
  // of `step`, and the log without what measures time.
  std::string State(const std::string& where, int64_t step) const;

 private:
  std::string folder_;
};

// A file of this workspace, where tests see it.
std::string Runfile(const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_TESTS_DISTRIBUTED_RANKS_H_
