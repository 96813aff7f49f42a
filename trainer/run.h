// Runs an experiment: loads and checks it, then trains and evaluates its
// stages.
#ifndef SEMVQ_TRAINER_RUN_H_
#define SEMVQ_TRAINER_RUN_H_

#include <string>
#include <vector>

#include "trainer/flags.h"

namespace semvq {

// Exit codes of the trainer, as --help states them.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitBadInput = 2;
inline constexpr int kExitStopped = 3;

// Everything behind main(): parses `args` (the program's name first), runs,
// prints, returns the exit code. Installs handlers for SIGINT, SIGTERM and
// SIGUSR1. LibTorch's exceptions end here.
int RunTrainer(const std::vector<std::string>& args);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_RUN_H_
