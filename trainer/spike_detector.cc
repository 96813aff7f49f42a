#include "trainer/spike_detector.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace semvq {
namespace {

// The standard deviation of normal values over their median absolute deviation.
constexpr double kNormal = 1.4826;
// Losses that hardly move at all must not make a spike of nothing.
constexpr double kLeastSpread = 1e-3;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::optional<SpikeDetector::Spike> SpikeDetector::Add(int64_t step,
                                                       double loss) {
  if (config_.threshold() <= 0) return std::nullopt;
  const auto window = static_cast<size_t>(config_.window());
  // From half a window on there is something to compare with.
  if (2 * window_.size() >= window) {
    const std::vector<double> known(window_.begin(), window_.end());
    const double median = Median(known);
    std::vector<double> distances;
    for (double value : known) distances.push_back(std::abs(value - median));
    const double spread = std::max(kNormal * Median(std::move(distances)),
                                   kLeastSpread * std::abs(median));
    const double deviations = (loss - median) / std::max(spread, 1e-12);
    if (deviations > config_.threshold()) {
      if (in_a_row_++ == 0) first_step_ = step;
      if (in_a_row_ < config_.steps()) return std::nullopt;
      in_a_row_ = 0;
      window_.clear();
      return Spike{first_step_, loss, median, deviations};
    }
  }
  in_a_row_ = 0;
  window_.push_back(loss);
  if (window_.size() > window) window_.pop_front();
  return std::nullopt;
}

std::string SpikeDetector::State() const {
  std::string state = absl::StrCat(first_step_, " ", in_a_row_);
  // As hexadecimal fractions, which lose no bit.
  for (double value : window_) absl::StrAppendFormat(&state, " %a", value);
  return state;
}

bool SpikeDetector::LoadState(const std::string& state) {
  window_.clear();
  first_step_ = in_a_row_ = 0;
  const std::vector<absl::string_view> words =
      absl::StrSplit(state, ' ', absl::SkipEmpty());
  if (words.size() < 2) return false;
  bool good = absl::SimpleAtoi(words[0], &first_step_) &&
              absl::SimpleAtoi(words[1], &in_a_row_);
  for (size_t i = 2; i < words.size(); ++i) {
    const std::string word(words[i]);
    char* end = nullptr;
    window_.push_back(std::strtod(word.c_str(), &end));
    good = good && *end == '\0' && std::isfinite(window_.back());
  }
  if (!good) *this = SpikeDetector(config_);
  return good;
}

}  // namespace semvq
