#include "trainer/rank_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <streambuf>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/util/file.h"

namespace semvq {
namespace {

// Collects lines; stdio locks around it.
struct Lines {
  std::string prefix;
  std::string line;
};

void WriteLine(Lines& lines) {
  const std::string text = absl::StrCat(lines.prefix, lines.line, "\n");
  lines.line.clear();
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n =
        write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (n <= 0) return;  // There is nowhere to say so.
    done += static_cast<size_t>(n);
  }
}

ssize_t Write(void* cookie, const char* data, size_t size) {
  Lines& lines = *static_cast<Lines*>(cookie);
  for (size_t i = 0; i < size; ++i) {
    if (data[i] != '\n') {
      lines.line.push_back(data[i]);
    } else if (!lines.line.empty()) {
      WriteLine(lines);
    }
  }
  return static_cast<ssize_t>(size);
}

// std::cerr's way into `stderr`.
class StderrBuffer : public std::streambuf {
 protected:
  int_type overflow(int_type c) override {
    return c == traits_type::eof() ? 0 : std::fputc(c, stderr);
  }
  std::streamsize xsputn(const char* data, std::streamsize size) override {
    return static_cast<std::streamsize>(
        std::fwrite(data, 1, static_cast<size_t>(size), stderr));
  }
};

}  // namespace

void SpeakAsRank(int64_t rank) {
  const int nowhere = open("/dev/null", O_WRONLY);
  if (nowhere >= 0) {
    std::fflush(stdout);
    dup2(nowhere, STDOUT_FILENO);
    close(nowhere);
  }
  // They live as long as the process, whose last words may come late.
  auto* lines = new Lines{absl::StrCat("[rank ", rank, "] "), ""};
  cookie_io_functions_t functions = {};
  functions.write = Write;
  std::FILE* stream = fopencookie(lines, "w", functions);
  if (stream == nullptr) return;
  std::setvbuf(stream, nullptr, _IONBF, 0);
  stderr = stream;
  std::cerr.rdbuf(new StderrBuffer);
}

void RankErrors::SetFolder(const std::string& run_folder) {
  std::lock_guard<std::mutex> lock(mutex_);
  folder_ = run_folder;
}

void RankErrors::Write(const std::string& text) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (launch_ == nullptr || folder_.empty() || !IsDirectory(folder_)) return;
  const std::string errors = JoinPath(folder_, "errors");
  absl::Status status = MakeDirectories(errors);
  if (status.ok()) {
    auto file = FileWriter::Append(
        JoinPath(errors, absl::StrCat("rank_", launch_->rank, ".txt")));
    status = file.status();
    if (file.ok()) {
      status = (*file)->Write(absl::StrCat(
          absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone()),
          " rank ", launch_->rank, " of ", launch_->size, ", start ",
          launch_->restarts + 1, "\n", text, "\n\n"));
    }
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  }
}

}  // namespace semvq
