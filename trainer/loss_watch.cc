#include "trainer/loss_watch.h"

#include <torch/types.h>

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace semvq {

void LossWatch::Add(int64_t step, const NamedTensors& values) {
  if (!on_) return;
  at::Tensor sum;
  int64_t count = 0;
  for (const auto& [name, value] : values) {
    if (name != "loss") continue;
    const at::Tensor loss = value.detach().to(at::kDouble);
    sum = sum.defined() ? sum + loss : loss;
    ++count;
  }
  if (count > 0) {
    pending_.emplace_back(step, sum / static_cast<double>(count));
  }
}

std::optional<SpikeDetector::Spike> LossWatch::Look() {
  std::optional<SpikeDetector::Spike> spike;
  for (const auto& [step, loss] : pending_) {
    spike = detector_.Add(step, loss.item<double>());
    if (spike.has_value()) break;
  }
  pending_.clear();
  return spike;
}

std::string LossWatch::State() const {
  std::string state = detector_.State();
  for (const auto& [step, loss] : pending_) {
    absl::StrAppendFormat(&state, ";%d %a", step, loss.item<double>());
  }
  return state;
}

bool LossWatch::LoadState(const std::string& state) {
  const std::vector<std::string> parts = absl::StrSplit(state, ';');
  pending_.clear();
  bool good = detector_.LoadState(parts[0]);
  for (size_t i = 1; good && i < parts.size(); ++i) {
    const std::pair<std::string, std::string> words =
        absl::StrSplit(parts[i], absl::MaxSplits(' ', 1));
    int64_t step = 0;
    char* end = nullptr;
    const double loss = std::strtod(words.second.c_str(), &end);
    good = absl::SimpleAtoi(words.first, &step) && !words.second.empty() &&
           *end == '\0';
    pending_.emplace_back(step, torch::tensor(loss, at::kDouble));
  }
  if (!good) pending_.clear();
  return good;
}

}  // namespace semvq
