#include "data/sources/webdataset/spool.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/util/hash.h"
#include "data/shard_names.h"

extern char** environ;

namespace semvq {
namespace {

constexpr absl::string_view kEnding = ".tar";

// Starts `words` with its output in the pipe `out`. 0, or an errno.
int Start(const std::vector<std::string>& words, int out, pid_t* child) {
  std::vector<char*> argv;
  for (const std::string& word : words)
    argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  const int error =
      posix_spawnp(child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Everything from `in` to `out`.
absl::Status Copy(int in, FileWriter* out, int64_t max_bytes) {
  std::vector<char> buffer(size_t{1} << 20);
  int64_t total = 0;
  for (;;) {
    const ssize_t n = read(in, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "cannot read from", "the command");
    if (n == 0) return absl::OkStatus();
    total += n;
    if (total > max_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "it wrote more than max_shard_bytes = ", max_bytes, " bytes"));
    }
    const absl::Status status =
        out->Write(buffer.data(), static_cast<size_t>(n));
    if (!status.ok()) return status;
  }
}

std::string HowItEnded(int status) {
  return WIFSIGNALED(status)
             ? absl::StrCat("it was ended by signal ", WTERMSIG(status))
             : absl::StrCat("it ended with code ", WEXITSTATUS(status));
}

// Only one at a time, of all threads and processes.
class FileLock {
 public:
  explicit FileLock(const std::string& path, bool wait = true)
      : fd_(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    int result = -1;
    while (fd_ >= 0 &&
           (result = flock(fd_, wait ? LOCK_EX : LOCK_EX | LOCK_NB)) != 0 &&
           errno == EINTR) {
    }
    held_ = result == 0;
  }
  bool held() const { return held_; }
  ~FileLock() {
    if (fd_ >= 0) close(fd_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  const int fd_;
  bool held_ = false;
};

// Beside each shard: whoever fetches, opens or removes it holds this.
std::string LockOf(const std::string& path) {
  return absl::StrCat(path, ".lock");
}

}  // namespace

absl::Status RunToFile(const std::string& command, const std::string& path,
                       int64_t max_bytes) {
  absl::StatusOr<std::vector<std::string>> words = CommandWords(command);
  if (!words.ok()) return words.status();
  const std::string partial = absl::StrCat(path, ".", getpid(), ".partial");
  absl::StatusOr<std::unique_ptr<FileWriter>> out = FileWriter::Create(partial);
  if (!out.ok()) return out.status();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return FileError(errno, "cannot make", "a pipe");
  pid_t child = 0;
  const int error = Start(*words, ends[1], &child);
  close(ends[1]);
  absl::Status status;
  if (error != 0) {
    status = absl::UnavailableError(absl::StrCat(
        "the command ", command, " cannot be started: ", std::strerror(error)));
  } else {
    status = Copy(ends[0], out->get(), max_bytes);
    if (!status.ok()) kill(child, SIGKILL);
    int ended = 0;
    while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
    }
    if (status.ok() && ended != 0)
      status = absl::UnavailableError(HowItEnded(ended));
    if (!status.ok()) {
      status = absl::Status(
          status.code(),
          absl::StrCat("the command ", command, ": ", status.message()));
    }
  }
  close(ends[0]);
  if (status.ok()) status = (*out)->Close();
  if (status.ok()) status = RenamePath(partial, path);
  if (!status.ok()) unlink(partial.c_str());
  return status;
}

std::string Spool::PathOf(const std::string& command) const {
  return JoinPath(folder_,
                  absl::StrCat(Sha256Hex(command).substr(0, 24), kEnding));
}

absl::StatusOr<std::shared_ptr<const FileReader>> Spool::Open(
    const std::string& command,
    const std::function<absl::Status(const std::string&)>& look) const {
  const std::string path = PathOf(command);
  absl::Status status = MakeDirectories(folder_);
  if (!status.ok()) return status;
  const FileLock lock(LockOf(path));
  if (!PathExists(path)) {
    status = RunToFile(command, path, max_bytes_);
    if (!status.ok()) return status;
    RemoveOldest();
  }
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // Used now.
  absl::StatusOr<std::unique_ptr<FileReader>> reader = FileReader::Open(path);
  if (!reader.ok()) return reader.status();
  if (look != nullptr) status = look(path);
  if (!status.ok()) return status;
  return std::shared_ptr<const FileReader>(*std::move(reader));
}

void Spool::RemoveOldest() const {
  absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder_);
  if (!names.ok()) return;
  std::vector<std::pair<std::pair<int64_t, int64_t>, std::string>> shards;
  for (const std::string& name : *names) {
    if (!absl::EndsWith(name, kEnding)) continue;
    const std::string path = JoinPath(folder_, name);
    struct stat info;
    if (stat(path.c_str(), &info) != 0) continue;
    shards.push_back({{info.st_mtim.tv_sec, info.st_mtim.tv_nsec}, path});
  }
  std::sort(shards.begin(), shards.end());
  for (size_t i = 0; i + static_cast<size_t>(shards_) < shards.size(); ++i) {
    const FileLock lock(LockOf(shards[i].second), /*wait=*/false);
    if (lock.held()) unlink(shards[i].second.c_str());
  }
}

}  // namespace semvq
