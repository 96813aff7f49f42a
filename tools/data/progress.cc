#include "tools/data/progress.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"

namespace semvq::tools {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Progress::Progress(std::string what, int64_t total)
    : what_(std::move(what)),
      total_(total),
      start_(Clock::now()),
      last_(start_) {}

void Progress::Add(int64_t n) {
  count_ += n;
  const auto now = Clock::now();
  if (now - last_ < std::chrono::seconds(1)) return;
  last_ = now;
  Print(/*last=*/false);
}

void Progress::Done() { Print(/*last=*/true); }

void Progress::Print(bool last) {
  const double seconds =
      std::chrono::duration<double>(Clock::now() - start_).count();
  const double rate = seconds > 0 ? count_ / seconds : 0;
  absl::FPrintF(stderr, "  %-9s %6d of %d, %.0f per second%s\n", what_, count_,
                total_, rate,
                last ? absl::StrFormat(", %.1f s", seconds) : std::string());
}

}  // namespace semvq::tools
