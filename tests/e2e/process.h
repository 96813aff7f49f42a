// Runs a program as a user does, and does to it what machines and users do.
#ifndef SEMVQ_TESTS_E2E_PROCESS_H_
#define SEMVQ_TESTS_E2E_PROCESS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace semvq {

struct ProcessOptions {
  std::map<std::string, std::string> environment;  // Added to this process's.
  int64_t max_file_size = 0;                       // RLIMIT_FSIZE; 0: none.
  int64_t max_data = 0;                            // RLIMIT_DATA; 0: none.
  // Asked every millisecond: a signal to send once, or 0.
  std::function<int()> signal;
  int timeout_seconds = 50;  // Then it is killed.
};

struct ProcessResult {
  int code = -1;       // Exit status; -1 when a signal ended it.
  int killed = 0;      // That signal.
  std::string output;  // stdout, then stderr.
};

ProcessResult RunProcess(const std::vector<std::string>& arguments,
                         const ProcessOptions& options = {});

}  // namespace semvq

#endif  // SEMVQ_TESTS_E2E_PROCESS_H_
