#include "core/metrics/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace semvq {
namespace {

// The rate forgets with this time constant, in seconds.
constexpr double kRateMemory = 30;

double SteadySeconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const int64_t s = std::llround(seconds);
  if (s >= 3600) {
    return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  }
  return absl::StrFormat("%d:%02d", s / 60, s % 60);
}

ProgressLine::ProgressLine(Options options, std::FILE* out)
    : options_(std::move(options)), out_(out), step_(options_.first_step) {
  if (!options_.clock) options_.clock = SteadySeconds;
  terminal_ = options_.terminal == Options::Terminal::kDetect
                  ? isatty(fileno(out)) == 1
                  : options_.terminal == Options::Terminal::kYes;
  start_ = last_shown_ = last_update_ = options_.clock();
}

ProgressLine::~ProgressLine() { Finish(); }

std::string ProgressLine::Format(double now) const {
  const int64_t total = options_.total_steps;
  const double elapsed = now - start_;
  std::string out = absl::StrCat(options_.label, " ", step_);
  if (total > 0) absl::StrAppend(&out, "/", total);
  if (loss_) absl::StrAppendFormat(&out, "  loss %.4g", *loss_);
  absl::StrAppendFormat(&out, "  %.3g %s/s", rate_, options_.unit);
  absl::StrAppend(&out, "  ", FormatDuration(elapsed));
  if (total > 0) {
    const double left =
        rate_ > 0 ? std::max<int64_t>(total - step_, 0) / rate_ : -1;
    absl::StrAppend(&out, "<", FormatDuration(left));
  }
  const double share = elapsed > 0 ? std::min(waited_ / elapsed, 1.0) : 0;
  absl::StrAppendFormat(&out, "  data wait %.0f%%", 100 * share);
  return out;
}

void ProgressLine::Update(int64_t step, std::optional<double> loss,
                          double wait_seconds) {
  const double now = options_.clock();
  const double took = now - last_update_;
  if (took > 0 && step > step_) {
    const double rate = (step - step_) / took;
    const double weight = any_ ? 1 - std::exp(-took / kRateMemory) : 1;
    rate_ += weight * (rate - rate_);
  }
  const bool first = !std::exchange(any_, true);
  last_update_ = now;
  step_ = step;
  loss_ = loss;
  waited_ += wait_seconds;
  const double interval =
      terminal_ ? options_.terminal_interval : options_.plain_interval;
  const bool last = options_.total_steps > 0 && step >= options_.total_steps;
  const bool end = options_.show_ends ? first || last : last && shown_;
  if (!end && now - last_shown_ < interval) return;
  last_shown_ = now;
  shown_ = true;
  if (terminal_) {
    // Return, the text, and clear what a longer line left behind it.
    absl::FPrintF(out_, "\r%s\x1b[K", Format(now));
    open_ = true;
  } else {
    absl::FPrintF(out_, "%s\n", Format(now));
  }
  std::fflush(out_);
}

void ProgressLine::Print(absl::string_view text) {
  if (open_) absl::FPrintF(out_, "\r\x1b[K");
  absl::FPrintF(out_, "%s\n", text);
  if (open_) absl::FPrintF(out_, "%s", Format(options_.clock()));
  std::fflush(out_);
}

void ProgressLine::Finish() {
  if (std::exchange(open_, false)) {
    absl::FPrintF(out_, "\n");
    std::fflush(out_);
  }
}

}  // namespace semvq
