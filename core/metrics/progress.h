#ifndef SEMVQ_CORE_METRICS_PROGRESS_H_
#define SEMVQ_CORE_METRICS_PROGRESS_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace semvq {

// "1:02:03", "2:03" or "?" for a negative or unknown number of seconds.
std::string FormatDuration(double seconds);

// Shows how a run gets on: step, rate, time left, loss and the share of the
// time that was spent waiting for data. On a terminal one line that rewrites
// itself; elsewhere plain lines at intervals. Not for several threads.
class ProgressLine {
 public:
  struct Options {
    int64_t first_step = 0;  // done before this process: a resume
    int64_t total_steps = 0;
    std::string label = "train";
    std::string unit = "step";  // What is counted: "2 step/s".
    // Show the first and the last update whatever the interval; without it,
    // what takes less than an interval shows nothing.
    bool show_ends = true;
    // Seconds between two lines: on a terminal, and elsewhere.
    double terminal_interval = 0.2;
    double plain_interval = 10;
    // For tests: seconds from any start, and a terminal or not.
    std::function<double()> clock;
    enum class Terminal { kDetect, kYes, kNo } terminal = Terminal::kDetect;
  };

  // Writes to `out`, which must outlive this.
  ProgressLine(Options options, std::FILE* out = stderr);
  // Ends the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // After each step: steps done in all, the latest loss (none before the first
  // record), and the seconds that this step waited for data.
  void Update(int64_t step, std::optional<double> loss, double wait_seconds);

  // Prints a line of text above the progress.
  void Print(absl::string_view text);

  // Ends the line in place; the next Update starts a new one.
  void Finish();

 private:
  std::string Format(double now) const;

  Options options_;
  std::FILE* out_;
  bool terminal_;
  double start_;
  double last_shown_;
  double last_update_;
  double rate_ = 0;  // steps a second, recent ones weighing more
  double waited_ = 0;
  int64_t step_ = 0;
  std::optional<double> loss_;
  bool any_ = false;
  bool shown_ = false;
  bool open_ = false;  // a line without its end is on the terminal
};

}  // namespace semvq

#endif  // SEMVQ_CORE_METRICS_PROGRESS_H_
