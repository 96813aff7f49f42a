#include "tests/e2e/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>

namespace semvq {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void RedirectTo(const std::string& path, int fd) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0 || dup2(file, fd) < 0) _exit(126);
}

}  // namespace

ProcessResult RunProcess(const std::vector<std::string>& arguments,
                         const ProcessOptions& options) {
  const std::string prefix = testing::TempDir() + "/process";
  const std::string out = prefix + ".out", err = prefix + ".err";
  const pid_t pid = fork();
  if (pid == 0) {
    RedirectTo("/dev/null", STDIN_FILENO);
    RedirectTo(out, STDOUT_FILENO);
    RedirectTo(err, STDERR_FILENO);
    for (const auto& [name, value] : options.environment)
      setenv(name.c_str(), value.c_str(), 1);
    const auto limit = [](__rlimit_resource_t resource, int64_t value) {
      if (value <= 0) return;
      const rlim_t size = static_cast<rlim_t>(value);
      const rlimit both = {size, size};
      setrlimit(resource, &both);
    };
    limit(RLIMIT_FSIZE, options.max_file_size);
    limit(RLIMIT_DATA, options.max_data);
    std::vector<char*> argv;
    for (const std::string& a : arguments)
      argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    _exit(127);
  }
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::seconds(options.timeout_seconds);
  bool sent = false;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << arguments[0] << " did not end in time";
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      break;
    }
    const int number = !sent && options.signal ? options.signal() : 0;
    if (number != 0) {
      kill(pid, number);
      sent = true;
    }
    usleep(1000);
  }
  ProcessResult result;
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.killed = WTERMSIG(status);
  result.output = Slurp(out) + Slurp(err);
  return result;
}

}  // namespace semvq
