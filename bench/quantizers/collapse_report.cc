#include "bench/quantizers/collapse_report.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/quantize/code_metrics.h"
#include "core/util/json.h"
#include "kernels/scatter.h"

namespace semvq {
namespace {

// "1024", "4 x 1024", "8 + 16".
std::string Codes(const std::vector<int64_t>& per_group) {
  if (per_group.empty()) return "none";
  const bool same = std::all_of(per_group.begin(), per_group.end(),
                                [&](int64_t k) { return k == per_group[0]; });
  if (per_group.size() == 1) return absl::StrCat(per_group[0]);
  return same ? absl::StrCat(per_group.size(), " x ", per_group[0])
              : absl::StrJoin(per_group, " + ");
}

double LastStretch(const ArmResult& r) {
  return r.used_by_stretch.empty() ? 0 : r.used_by_stretch.back();
}

// But for the first, while projections and codes still find each other.
double LeastStretch(const ArmResult& r) {
  if (r.used_by_stretch.size() < 2) return LastStretch(r);
  return *std::min_element(r.used_by_stretch.begin() + 1,
                           r.used_by_stretch.end());
}

using Results = std::vector<const ArmResult*>;

// Mean and sample standard deviation over the seeds.
std::string Cell(const Results& seeds, double scale, int decimals,
                 const std::function<double(const ArmResult&)>& value) {
  const auto n = static_cast<double>(seeds.size());
  double mean = 0, squares = 0;
  for (const ArmResult* r : seeds) mean += scale * value(*r) / n;
  for (const ArmResult* r : seeds)
    squares += std::pow(scale * value(*r) - mean, 2);
  std::string text = absl::StrFormat("%.*f", decimals, mean);
  if (seeds.size() > 1) {
    absl::StrAppend(
        &text, " ± ",
        absl::StrFormat("%.*f", decimals, std::sqrt(squares / (n - 1))));
  }
  return text;
}

std::string Line(const std::string& name, const Results& all) {
  Results seeds;
  std::string broken;
  for (const ArmResult* r : all) {
    if (r->nonfinite_step < 0) {
      seeds.push_back(r);
    } else {
      absl::StrAppend(&broken, broken.empty() ? "" : ", ", "seed ", r->seed,
                      " not finite at step ", r->nonfinite_step);
    }
  }
  std::vector<std::string> cells = {absl::StrCat("`", name, "`"),
                                    Codes(all[0]->codes_per_group)};
  if (seeds.empty()) {
    cells.push_back(broken);
    cells.resize(9, "");
  } else {
    const bool has_codes = !all[0]->codes_per_group.empty();
    const auto of_codes = [&](double scale, int decimals, auto field) {
      cells.push_back(has_codes ? Cell(seeds, scale, decimals, field) : "");
    };
    of_codes(100, 1, [](const ArmResult& r) { return r.used_held_out; });
    of_codes(100, 1, LastStretch);
    of_codes(100, 1, LeastStretch);
    of_codes(1, 0, [](const ArmResult& r) { return r.perplexity; });
    of_codes(1, 0,
             [](const ArmResult& r) { return static_cast<double>(r.dead); });
    cells.push_back(
        Cell(seeds, 1, 3, [](const ArmResult& r) { return r.error; }));
    cells.push_back(
        Cell(seeds, 1, 1, [](const ArmResult& r) { return r.step_ms; }));
    if (!broken.empty()) absl::StrAppend(&cells[0], " (", broken, ")");
  }
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

}  // namespace

CodeUse::CodeUse(const std::vector<int64_t>& codes_per_group) {
  for (const int64_t codes : codes_per_group)
    histograms_.push_back(at::zeros({codes}, at::kLong));
}

void CodeUse::Add(const at::Tensor& codes) {
  const auto groups = static_cast<int64_t>(histograms_.size());
  TORCH_CHECK(codes.dim() >= 1 && codes.size(-1) == groups,
              "expected codes [..., ", groups, "], got ", codes.sizes());
  for (int64_t g = 0; g < groups; ++g) {
    histograms_[g] +=
        Histogram(codes.select(-1, g).contiguous(), histograms_[g].size(0));
  }
}

double CodeUse::LeastShare() const {
  double least = histograms_.empty() ? 0 : 1;
  for (const at::Tensor& h : histograms_)
    least = std::min(least, UsedShare(h).item<double>());
  return least;
}

double CodeUse::MeanPerplexity() const {
  double sum = 0;
  for (const at::Tensor& h : histograms_) sum += Perplexity(h).item<double>();
  return histograms_.empty() ? 0
                             : sum / static_cast<double>(histograms_.size());
}

int64_t CodeUse::Unused() const {
  int64_t unused = 0;
  for (const at::Tensor& h : histograms_)
    unused += h.eq(0).sum().item<int64_t>();
  return unused;
}

std::string CollapseTable(const std::vector<ArmResult>& results,
                          const TableFacts& facts) {
  std::vector<std::pair<std::string, Results>> arms;
  for (const ArmResult& r : results) {
    auto found = std::find_if(arms.begin(), arms.end(),
                              [&](const auto& a) { return a.first == r.name; });
    if (found == arms.end()) {
      arms.push_back({r.name, {}});
      found = arms.end() - 1;
    }
    found->second.push_back(&r);
  }
  std::string text = absl::StrCat(
      "| Quantizer | Codes | Used, held out, % | Used in the last ",
      facts.stretch, " steps, % | Least of any ", facts.stretch,
      " steps, % | Perplexity | Dead codes | Error | ms a step |\n",
      "|---|---|---|---|---|---|---|---|---|\n");
  for (const auto& [name, seeds] : arms) text += Line(name, seeds);
  return text;
}

std::string CollapseJson(const std::vector<ArmResult>& results,
                         const TableFacts& facts) {
  const auto number = [](double value) {
    return std::isfinite(value) ? absl::StrFormat("%.9g", value)
                                : std::string("null");
  };
  std::vector<std::string> rows;
  for (const ArmResult& r : results) {
    std::string row =
        absl::StrCat("{\"name\": ", JsonString(r.name), ", \"seed\": ", r.seed,
                     ", \"codes_per_group\": [",
                     absl::StrJoin(r.codes_per_group, ", "), "]");
    if (r.nonfinite_step >= 0) {
      absl::StrAppend(&row, ", \"nonfinite_step\": ", r.nonfinite_step);
    } else {
      if (!r.codes_per_group.empty()) {
        absl::StrAppend(&row, ", \"used_held_out\": ", number(r.used_held_out),
                        ", \"used_by_stretch\": [",
                        absl::StrJoin(r.used_by_stretch, ", ",
                                      [&](std::string* out, double used) {
                                        out->append(number(used));
                                      }),
                        "]", ", \"perplexity\": ", number(r.perplexity),
                        ", \"dead\": ", r.dead);
      }
      absl::StrAppend(&row, ", \"error\": ", number(r.error),
                      ", \"step_ms\": ", number(r.step_ms),
                      ", \"features\": ", r.features);
    }
    rows.push_back(absl::StrCat("    ", row, "}"));
  }
  return absl::StrCat(
      "{\n  \"steps\": ", facts.steps, ",\n  \"stretch\": ", facts.stretch,
      ",\n  \"batch_size\": ", facts.batch_size,
      ",\n  \"experiment\": ", JsonString(facts.experiment),
      ",\n  \"weights\": ", JsonString(facts.weights), ",\n  \"results\": [\n",
      absl::StrJoin(rows, ",\n"), "\n  ]\n}\n");
}

std::vector<std::string> Collapsed(const std::vector<ArmResult>& results,
                                   double least) {
  std::vector<std::string> names;
  for (const ArmResult& r : results) {
    if (r.nonfinite_step >= 0) {
      names.push_back(absl::StrCat(r.name, " (seed ", r.seed,
                                   ": not finite at step ", r.nonfinite_step,
                                   ")"));
    } else if (!r.codes_per_group.empty() &&
               std::min(r.used_held_out, LastStretch(r)) < least) {
      names.push_back(absl::StrFormat(
          "%s (seed %d: %.1f %% held out, %.1f %% in training)", r.name, r.seed,
          100 * r.used_held_out, 100 * LastStretch(r)));
    }
  }
  return names;
}

}  // namespace semvq
